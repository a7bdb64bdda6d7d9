# SPDX-License-Identifier: MIT
"""What ploop/*.h declares, for ctypes: the structures, constants and functions that this package uses.

tests/bindings/layouts.py holds all of it to the headers. The libraries are looked for where the dynamic linker looks; the
environment variables PLOOP_LIBRARY and PLOOP_BUNDLE_LIBRARY name others.
"""
import ctypes
import os
from ctypes import CFUNCTYPE, POINTER, Structure, c_char, c_char_p, c_int, c_int32, c_int64, c_size_t, c_uint32, c_uint64, c_void_p

FILE_CAN_GROW = 8

FILE_READ_ONLY = 1
FILE_READ_WRITE = 2
FILE_UNLOCKED = 4
FILE_DIRECT = 8
FILE_CREATE = 16

IO_READ, IO_WRITE, IO_SYNC, IO_ALLOCATE, IO_PUNCH, IO_TRUNCATE = 1, 2, 3, 4, 5, 6

DEV_READ_ONLY = 1
DEV_RECOVER = 2
DEV_RAW_BASE = 16

PIO_FUA = 1
PIO_NO_UNMAP = 4
COMPLETION_PIO = 1

MERGE_UP = 1
MERGE_DOWN = 2
JOB_COMMIT = 3
JOB_ENDED = 4

EXTENT_MAPPED = 1
KIND_READ = 1
KIND_WRITE = 2
KIND_WRITE_ZEROES = 3
KIND_DISCARD = 4
KIND_FLUSH = 5
KIND_BAT_WRITE = 6

CHECK_UNCLEAN = 2
REPAIR_LEAKS = 1
REPAIR_UNCLEAN = 2
REPAIR_ENTRIES = 4

BUNDLE_READ_ONLY = 1
BUNDLE_READ_WRITE = 2
BUNDLE_PLAIN = 1
BUNDLE_EXPANDING = 2
BUNDLE_GUID_SIZE = 39

LogFn = CFUNCTYPE(None, c_void_p, c_uint32, c_uint32, c_char_p)
EventFn = CFUNCTYPE(None, c_void_p, c_uint32, c_uint64)
PioFn = CFUNCTYPE(None, c_void_p, c_int, c_void_p)
JobFn = CFUNCTYPE(None, c_void_p, c_void_p, c_int)
JobCommitFn = CFUNCTYPE(None, c_void_p, c_void_p)


class Iovec(Structure):
    _fields_ = [("iov_base", c_void_p), ("iov_len", c_size_t)]


class Io(Structure):
    _ploop_ = "ploop_io"
    _fields_ = [("size", c_uint32), ("op", c_uint32), ("flags", c_uint32), ("iov_count", c_uint32), ("queue", c_uint32),
                ("reserved", c_uint32), ("offset", c_uint64), ("length", c_uint64), ("iov", POINTER(Iovec)),
                ("backend_data", c_void_p * 5)]


class FileInfo(Structure):
    _ploop_ = "ploop_file_info"
    _fields_ = [("size", c_uint64), ("file_size", c_uint64), ("capabilities", c_uint32), ("request_alignment", c_uint32),
                ("max_transfer", c_uint64), ("reserved", c_uint64 * 4)]


GetInfoFn = CFUNCTYPE(c_int, c_void_p, POINTER(FileInfo))
SubmitFn = CFUNCTYPE(c_int, c_void_p, POINTER(Io))
CloseFn = CFUNCTYPE(None, c_void_p)


class IoOps(Structure):
    _ploop_ = "ploop_io_ops"
    _fields_ = [("size", c_size_t), ("get_info", GetInfoFn), ("submit", SubmitFn),
                ("attach", CFUNCTYPE(c_int, c_void_p, c_uint32)), ("kick", CFUNCTYPE(None, c_void_p, c_uint32)),
                ("reap", CFUNCTYPE(c_int, c_void_p, c_uint32)), ("wait", CFUNCTYPE(c_int, c_void_p, c_uint32, c_uint64)),
                ("poll_fd", CFUNCTYPE(c_int, c_void_p, c_uint32)), ("cancel", CFUNCTYPE(None, c_void_p)),
                ("reopen", CFUNCTYPE(c_int, c_void_p, c_uint32)), ("close", CloseFn),
                ("invalidate", CFUNCTYPE(c_int, c_void_p)),
                ("register_memory", CFUNCTYPE(c_int, c_void_p, c_void_p, c_uint64)),
                ("unregister_memory", CFUNCTYPE(None, c_void_p, c_void_p, c_uint64)), ("help", CFUNCTYPE(c_int, c_void_p)),
                ("data_extent", CFUNCTYPE(c_int, c_void_p, c_uint64, POINTER(c_uint64), POINTER(c_uint64)))]


class DevConfig(Structure):
    _ploop_ = "ploop_dev_config"
    _fields_ = [("size", c_uint64), ("flags", c_uint32), ("runner_count", c_uint32), ("queue_count", c_uint32),
                ("pio_count", c_uint32), ("enospc_policy", c_uint32), ("page_failure_limit", c_uint32),
                ("writeback_delay_ns", c_uint64), ("writeback_max_age_ns", c_uint64), ("preallocate_bytes", c_uint64),
                ("bat_limit_bytes", c_uint64), ("park_timeout_ns", c_uint64), ("clock", c_void_p), ("log", LogFn),
                ("event", EventFn), ("user_data", c_void_p), ("sync_failed_policy", c_uint32), ("reserved1", c_uint32),
                ("error_text", c_void_p), ("error_text_size", c_size_t), ("cow_delay_ns", c_uint64),
                ("reserved", c_uint64 * 5)]


class DevInfo(Structure):
    _ploop_ = "ploop_dev_info"
    _fields_ = [("size", c_uint64), ("disk_size", c_uint64), ("cluster_size", c_uint64), ("request_alignment", c_uint32),
                ("discard_granularity", c_uint32), ("max_request_bytes", c_uint64), ("state", c_uint32), ("error", c_int32),
                *[(name, c_uint64) for name in (
                    "file_size", "clusters_mapped", "clusters_free", "clusters_quarantined", "pages_dirty", "pages_failed",
                    "requests", "requests_fast", "requests_parked", "page_dirties", "page_redirties", "page_writes",
                    "page_write_calls", "page_write_failures", "syncs", "sync_failures", "barriers", "flushes",
                    "flushes_coalesced", "extensions", "punches", "double_completions")],
                ("memory_alignment", c_uint32), ("delta_count", c_uint32), ("clusters_copied", c_uint64),
                ("max_segments", c_uint32), ("completions_waiting", c_uint32), ("physical_block_bytes", c_uint32),
                ("optimal_io_bytes", c_uint32), ("max_discard_bytes", c_uint64), ("fua", c_uint32), ("zeroing", c_uint32),
                ("clusters_partial", c_uint64), ("copies_failed", c_uint64), ("reserved", c_uint64 * 1)]


class Stats(Structure):
    _ploop_ = "ploop_stats"
    _fields_ = [("size", c_uint64), ("requests", c_uint64), ("requests_fast", c_uint64), ("bytes", c_uint64),
                ("errors", c_uint64), ("reserved", c_uint64 * 7)]


class Completion(Structure):
    _ploop_ = "ploop_completion"
    _fields_ = [("pio", c_void_p), ("job", c_void_p), ("user_data", c_void_p), ("result", c_int32), ("kind", c_uint32)]


class Extent(Structure):
    _ploop_ = "ploop_extent"
    _fields_ = [("size", c_uint64), ("offset", c_uint64), ("length", c_uint64), ("host_offset", c_uint64), ("state", c_uint32),
                ("level", c_uint32), ("reserved", c_uint64 * 2)]


class ImageOptions(Structure):
    _ploop_ = "ploop_image_options"
    _fields_ = [("size", c_uint64), ("version", c_uint32), ("flags", c_uint32), ("disk_size", c_uint64),
                ("cluster_size", c_uint64), ("reserved", c_uint64 * 4)]


class ImageInfo(Structure):
    _ploop_ = "ploop_image_info"
    _fields_ = [("size", c_uint64), ("version", c_uint32), ("flags", c_uint32), ("disk_size", c_uint64),
                ("cluster_size", c_uint64), ("bat_entries", c_uint64), ("data_offset", c_uint64),
                ("extension_offset", c_uint64), ("file_size", c_uint64), ("in_use", c_uint32), ("reserved1", c_uint32),
                ("reserved", c_uint64 * 4), ("message", c_char * 160)]


class CheckRecord(Structure):
    _ploop_ = "ploop_check_record"
    _fields_ = [("size", c_uint64), ("kind", c_uint32), ("repair", c_uint32), ("guest_cluster", c_uint64),
                ("host_offset", c_uint64), ("count", c_uint64), ("reserved", c_uint64 * 4)]


RecordFn = CFUNCTYPE(None, c_void_p, POINTER(CheckRecord), c_char_p)
ProgressFn = CFUNCTYPE(c_int, c_void_p, c_uint64, c_uint64)


class CheckOptions(Structure):
    _ploop_ = "ploop_check_options"
    _fields_ = [("size", c_uint64), ("repair", c_uint32), ("reserved1", c_uint32), ("bat_limit_bytes", c_uint64),
                ("record", RecordFn), ("progress", ProgressFn), ("user_data", c_void_p), ("reserved2", c_void_p),
                ("reserved", c_uint64 * 4)]


class CheckResult(Structure):
    _ploop_ = "ploop_check_result"
    _fields_ = [("size", c_uint64), ("errors", c_uint64), ("leaks", c_uint64), ("repaired", c_uint64), ("mapped", c_uint64),
                ("recoverable", c_uint32), ("reserved1", c_uint32), ("free", c_uint64), ("notes", c_uint64),
                ("reserved", c_uint64 * 2)]


class JobInfo(Structure):
    _ploop_ = "ploop_job_info"
    _fields_ = [("size", c_uint64), ("kind", c_uint32), ("state", c_uint32), ("step", c_uint32), ("result", c_int32),
                ("bytes_done", c_uint64), ("bytes_total", c_uint64), ("rate", c_uint64), ("reserved", c_uint64 * 5)]


class BundleConfig(Structure):
    _ploop_ = "ploop_bundle_config"
    _fields_ = [("size", c_uint64), ("flags", c_uint32), ("reserved1", c_uint32), ("log", LogFn), ("user_data", c_void_p),
                ("progress", c_void_p), ("progress_data", c_void_p), ("merge_rate", c_uint64), ("reserved", c_uint64 * 2)]


class BundleInfo(Structure):
    _ploop_ = "ploop_bundle_info"
    _fields_ = [("size", c_uint64), ("disk_size", c_uint64), ("storage_count", c_uint32), ("snapshot_count", c_uint32),
                ("top", c_uint32), ("reserved1", c_uint32), ("reserved", c_uint64 * 4)]


class BundleSnapshot(Structure):
    _ploop_ = "ploop_bundle_snapshot"
    _fields_ = [("size", c_uint64), ("parent", c_uint32), ("child_count", c_uint32), ("guid", c_char * 40),
                ("reserved", c_uint64 * 4)]


class BundleImage(Structure):
    _ploop_ = "ploop_bundle_image"
    _fields_ = [("size", c_uint64), ("type", c_uint32), ("snapshot", c_uint32), ("name", c_char_p), ("path", c_char_p),
                ("reserved", c_uint64 * 4)]


class BundleOptions(Structure):
    _ploop_ = "ploop_bundle_options"
    _fields_ = [("size", c_uint64), ("version", c_uint32), ("reserved1", c_uint32), ("disk_size", c_uint64),
                ("cluster_size", c_uint64), ("log", LogFn), ("user_data", c_void_p), ("reserved", c_uint64 * 4)]


STRUCTURES = [value for value in list(globals().values())
              if isinstance(value, type) and issubclass(value, Structure) and hasattr(value, "_ploop_")]

HANDLE = c_void_p
OUT = POINTER(c_void_p)

# name: (result, arguments)
FUNCTIONS = {
    "ploop_version": (c_uint32, []),
    "ploop_has": (c_uint32, [c_uint32]),
    "ploop_io_complete": (None, [POINTER(Io), c_int64]),
    "ploop_file_create": (c_int, [POINTER(IoOps), c_void_p, OUT]),
    "ploop_file_open_posix": (c_int, [c_char_p, c_uint32, OUT]),
    "ploop_file_open_fd": (c_int, [c_int, c_uint32, OUT]),
    "ploop_file_create_memory": (c_int, [c_uint64, OUT]),
    "ploop_file_info": (c_int, [HANDLE, POINTER(FileInfo)]),
    "ploop_file_close": (None, [HANDLE]),
    "ploop_image_create": (c_int, [HANDLE, POINTER(ImageOptions)]),
    "ploop_image_probe": (c_int, [HANDLE, POINTER(ImageInfo)]),
    "ploop_image_check": (c_int, [HANDLE, POINTER(CheckOptions), POINTER(CheckResult)]),
    "ploop_dev_config_init": (None, [POINTER(DevConfig), c_size_t]),
    "ploop_dev_open": (c_int, [OUT, c_uint32, POINTER(DevConfig), OUT]),
    "ploop_dev_close": (c_int, [HANDLE]),
    "ploop_dev_info": (c_int, [HANDLE, POINTER(DevInfo)]),
    "ploop_dev_stats": (c_int, [HANDLE, c_uint32, c_uint32, POINTER(Stats)]),
    "ploop_dev_pread": (c_int64, [HANDLE, c_void_p, c_uint64, c_uint64]),
    "ploop_dev_pwrite": (c_int64, [HANDLE, c_void_p, c_uint64, c_uint64]),
    "ploop_dev_flush": (c_int, [HANDLE]),
    "ploop_dev_queue": (c_void_p, [HANDLE, c_uint32]),
    "ploop_queue_wait": (c_int, [HANDLE, c_uint64]),
    "ploop_queue_reap": (c_int, [HANDLE, POINTER(Completion), c_uint32]),
    "ploop_queue_submit": (c_int, [HANDLE, OUT, c_uint32]),
    "ploop_pio_get": (c_void_p, [HANDLE]),
    "ploop_pio_put": (None, [HANDLE]),
    "ploop_pio_prep_readv": (None, [HANDLE, c_uint64, POINTER(Iovec), c_uint32]),
    "ploop_pio_prep_writev": (None, [HANDLE, c_uint64, POINTER(Iovec), c_uint32, c_uint32]),
    "ploop_pio_prep_write_zeroes": (None, [HANDLE, c_uint64, c_uint64, c_uint32]),
    "ploop_pio_prep_discard": (None, [HANDLE, c_uint64, c_uint64]),
    "ploop_pio_prep_flush": (None, [HANDLE]),
    "ploop_pio_set_callback": (None, [HANDLE, PioFn, c_void_p]),
    "ploop_pio_execute": (c_int, [HANDLE]),
    "ploop_bat_lookup": (c_int, [HANDLE, c_uint64, c_uint64, POINTER(Extent)]),
    "ploop_dev_snapshot": (c_int, [HANDLE, HANDLE, JobCommitFn, JobFn, c_void_p, OUT]),
    "ploop_dev_merge": (c_int, [HANDLE, c_uint32, c_uint32, JobCommitFn, JobFn, c_void_p, OUT]),
    "ploop_dev_grow": (c_int, [HANDLE, c_uint64, JobFn, c_void_p, OUT]),
    "ploop_job_info": (c_int, [HANDLE, POINTER(JobInfo)]),
    "ploop_job_wait": (c_int, [HANDLE]),
    "ploop_job_committed": (c_int, [HANDLE, c_int]),
    "ploop_job_free": (c_int, [HANDLE]),
}

BUNDLE_FUNCTIONS = {
    "ploop_bundle_open": (c_int, [c_char_p, POINTER(BundleConfig), OUT]),
    "ploop_bundle_close": (None, [HANDLE]),
    "ploop_bundle_info": (c_int, [HANDLE, POINTER(BundleInfo)]),
    "ploop_bundle_snapshot": (c_int, [HANDLE, c_uint32, POINTER(BundleSnapshot)]),
    "ploop_bundle_find": (c_int, [HANDLE, c_char_p, POINTER(c_uint32)]),
    "ploop_bundle_image": (c_int, [HANDLE, c_uint32, c_uint32, POINTER(BundleImage)]),
    "ploop_bundle_chain": (c_int64, [HANDLE, c_uint32, POINTER(c_uint32), c_uint32]),
    "ploop_bundle_create": (c_int, [c_char_p, POINTER(BundleOptions)]),
    "ploop_bundle_take_snapshot": (c_int, [HANDLE, c_char_p]),
    "ploop_bundle_switch": (c_int, [HANDLE, c_uint32]),
    "ploop_bundle_delete": (c_int, [HANDLE, c_uint32]),
    "ploop_bundle_merge": (c_int, [HANDLE, c_uint32, c_uint32]),
}


def load(variable, name, functions):
    library = ctypes.CDLL(os.environ.get(variable, name))
    for function, (result, arguments) in functions.items():
        entry = getattr(library, function)
        entry.restype, entry.argtypes = result, arguments
    return library


library = load("PLOOP_LIBRARY", "libploop.so.2", FUNCTIONS)


def bundle_library():
    """The library of bundles, which is built where libxml2 is: loaded when it is asked for."""
    global _bundle
    if _bundle is None:
        _bundle = load("PLOOP_BUNDLE_LIBRARY", "libploop-bundle.so.2", BUNDLE_FUNCTIONS)
    return _bundle


_bundle = None


def sized(structure, **fields):
    """A structure with its size set and the rest zero, but for these fields."""
    return structure(size=ctypes.sizeof(structure), **fields)

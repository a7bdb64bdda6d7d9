// SPDX-License-Identifier: MIT

package main

/*
#include <errno.h>
#include <ploop/ploop.h>
#include <stdlib.h>

int goGetInfo(void *context, struct ploop_file_info *info);
int goSubmit(void *context, struct ploop_io *io);
void goClose(void *context);
*/
import "C"

import (
	"sync"
	"unsafe"
)

// storage is a backend over memory.
type storage struct {
	mutex    sync.Mutex
	bytes    []byte
	requests int
	closed   bool
}

func (s *storage) open() *C.ploop_file {
	ops := (*C.struct_ploop_io_ops)(C.calloc(1, C.size_t(unsafe.Sizeof(C.struct_ploop_io_ops{}))))
	defer C.free(unsafe.Pointer(ops)) // the library copies it
	ops.size = C.size_t(unsafe.Sizeof(*ops))
	ops.get_info = (*[0]byte)(C.goGetInfo)
	ops.submit = (*[0]byte)(C.goSubmit)
	ops.close = (*[0]byte)(C.goClose)
	var file *C.ploop_file
	call(C.ploop_file_create(ops, unsafe.Pointer(newHandle(s)), &file), "ploop_file_create")
	return file
}

//export goGetInfo
func goGetInfo(context unsafe.Pointer, info *C.struct_ploop_file_info) C.int {
	s := handleValue(context).(*storage)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	info.file_size = C.uint64_t(len(s.bytes))
	info.capabilities = C.PLOOP_FILE_CAN_GROW
	info.request_alignment = 1
	return 0
}

//export goSubmit
func goSubmit(context unsafe.Pointer, io *C.struct_ploop_io) C.int {
	C.ploop_io_complete(io, C.int64_t(handleValue(context).(*storage).carryOut(io)))
	return 0
}

//export goClose
func goClose(context unsafe.Pointer) {
	handleValue(context).(*storage).closed = true
	freeHandle((*C.uintptr_t)(context))
}

func (s *storage) resize(size uint64) {
	if size > uint64(len(s.bytes)) {
		s.bytes = append(s.bytes, make([]byte, size-uint64(len(s.bytes)))...)
	}
	s.bytes = s.bytes[:size]
}

func (s *storage) carryOut(io *C.struct_ploop_io) int64 {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.requests++
	switch io.op {
	case C.PLOOP_IO_READ, C.PLOOP_IO_WRITE:
		return s.transfer(io)
	case C.PLOOP_IO_TRUNCATE:
		s.resize(uint64(io.offset))
		return 0
	case C.PLOOP_IO_SYNC:
		return 0
	}
	return -C.EOPNOTSUPP
}

func (s *storage) transfer(io *C.struct_ploop_io) int64 {
	place := uint64(io.offset)
	if end := place + uint64(io.length); io.op == C.PLOOP_IO_WRITE && end > uint64(len(s.bytes)) {
		s.resize(end)
	}
	for _, piece := range unsafe.Slice(io.iov, io.iov_count) {
		if place >= uint64(len(s.bytes)) {
			break
		}
		memory := unsafe.Slice((*byte)(piece.iov_base), piece.iov_len)
		if io.op == C.PLOOP_IO_READ {
			place += uint64(copy(memory, s.bytes[place:]))
		} else {
			place += uint64(copy(s.bytes[place:], memory))
		}
	}
	return int64(place - uint64(io.offset))
}

/* SPDX-License-Identifier: MIT */
/*
 * The images of a snapshot in one storage, opened as a device.
 *
 *     CLOSED (count == 0) -> OPEN -> CLOSED
 *
 * An open stack needs nothing of the bundle any more: it has the names itself, so the bundle may be
 * changed and closed.
 *
 *  1. Each image is what the XML describes: its disk is as long as the storage, its clusters are of
 *     the storage's size.
 *  2. A stack of one plain image has no device: `dev` is NULL, and files[0] is the disk.
 *  3. Only the uppermost image is opened for writing; with PLOOP_DEV_RECOVER also one below it that
 *     needs that.
 */
#ifndef BUNDLE_STACK_H
#define BUNDLE_STACK_H

#include <stdatomic.h>

#include "bundle.h"

enum { STACK_MAX = 255 };

struct stack {
    struct report report; /* for the device's log */
    char *subject;        /* of the report */
    uint32_t count;       /* 0: closed */
    atomic_bool has_told; /* the device's log has told an error */
    uint64_t start, end;  /* of the storage, in bytes */
    uint64_t cluster_size;
    bool has_plain_root;
    bool is_writable;
    char *names[STACK_MAX]; /* of the images, the lowest first */
    ploop_file *files[STACK_MAX];
    ploop_dev *dev;
};

/* How to open one. */
struct stack_options {
    const struct ploop_dev_config *config; /* of the device, without log; NULL: the defaults */
};

/* The stack is zeros. 0 or -errno, told, and the stack is closed. */
int stack_open(struct stack *stack, const ploop_bundle *bundle, uint32_t storage, uint32_t snapshot,
               const struct stack_options *options);

/* 0 or -errno, told: what was written is perhaps not durable. */
int stack_close(struct stack *stack);

#endif

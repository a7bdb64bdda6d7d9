/* SPDX-License-Identifier: MIT */
/*
 * Repairs after a check: check.options.repair says which.
 */
#ifndef OPS_REPAIR_H
#define OPS_REPAIR_H

#include "ops/check.h"

/*
 * 0, with check->result.repaired counted; -ENOTSUP: the image has a feature that this library does not know and that forbids a
 * repair; -EIO: a part of the BAT could not be read; -ENOSPC, -EFBIG, -ENOMEM, -EROFS or what the backend returns. Where nothing
 * that was asked for needs repair, nothing is written. After a failure half-way the image is whole and marked in use.
 */
int repair(struct check *check);

#endif

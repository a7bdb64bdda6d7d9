/* SPDX-License-Identifier: MIT */
#include "ops/repair.h"

#include <errno.h>

int repair(struct check *check)
{
    (void)check;
    return -ENOTSUP;
}

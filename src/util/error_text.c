/* SPDX-License-Identifier: MIT */
/* See error_text.h. */
#include "util/error_text.h"

#include <string.h>

const char *error_text(int error, char space[ERROR_TEXT_SIZE])
{
    return strerror_r(-error, space, ERROR_TEXT_SIZE); /* GNU's, which returns the text */
}

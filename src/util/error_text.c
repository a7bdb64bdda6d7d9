/* SPDX-License-Identifier: MIT */
/* See error_text.h. */
#include "util/error_text.h"

#include <string.h>

const char *error_text(int error, char space[ERROR_TEXT_SIZE])
{
#ifdef __GLIBC__
    return strerror_r(-error, space, ERROR_TEXT_SIZE); /* GNU's, which returns the text */
#else
    return strerror_r(-error, space, ERROR_TEXT_SIZE) ? "unknown error" : space;
#endif
}

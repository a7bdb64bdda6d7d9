/* SPDX-License-Identifier: MIT */
/* Sizes as people write them, and as they read them. See common.h. */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "common.h"

static bool is_digit(char character)
{
    return character >= '0' && character <= '9';
}

/* The digits at *text as a number, and *text behind them. false: it is too large. */
static bool take_number(const char **text, uint64_t *number)
{
    bool fits = true;

    *number = 0;
    for (; is_digit(**text); (*text)++) {
        unsigned digit = (unsigned)(**text - '0');
        fits &= *number <= (UINT64_MAX - digit) / 10;
        *number = *number * 10 + digit;
    }
    return fits;
}

/*
 * The digits in [from, to), which stand behind a point, of `unit` bytes; rounded up. The last digit
 * comes first, so that no step is larger than 10 units.
 */
static uint64_t fraction_of(const char *from, const char *to, uint64_t unit)
{
    uint64_t bytes = 0;

    while (to > from) {
        bytes += (uint64_t)(*--to - '0') * unit;
        bytes = bytes / 10 + (bytes % 10 != 0);
    }
    return bytes;
}

/* How far a unit shifts: "K", "KB" and "KiB" are the same. 0: there is none; -1: unknown. */
static int take_unit(const char *text)
{
    static const char units[] = "kmgtp";

    if (!*text) {
        return 0;
    }
    const char *unit = strchr(units, *text | 0x20);
    bool is_known =
        unit && *unit && (!text[1] || !strcasecmp(text + 1, "b") || !strcasecmp(text + 1, "ib"));
    return is_known ? 10 * (int)(unit - units + 1) : -1;
}

int parse_size(const char *text, uint64_t *bytes)
{
    const char *fraction = NULL, *at = text;
    uint64_t number;

    if (!is_digit(*text)) {
        return -EINVAL;
    }
    bool fits = take_number(&at, &number);
    if (*at == '.') {
        fraction = ++at;
        at += strspn(at, "0123456789");
    }
    int shift = take_unit(at);
    if (shift < 0 || (fraction && (at == fraction || !shift))) {
        return -EINVAL;
    }
    if (!fits || number > (UINT64_MAX >> shift) - 1) {
        return -EOVERFLOW;
    }
    *bytes = number << shift;
    if (fraction) {
        *bytes += fraction_of(fraction, at, UINT64_C(1) << shift) + PLOOP_SECTOR_SIZE - 1;
        *bytes -= *bytes % PLOOP_SECTOR_SIZE;
    }
    return 0;
}

char *format_size(uint64_t bytes, char text[SIZE_TEXT])
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double size = (double)bytes;
    int unit = -1;

    while (size >= 1024 && unit < 5) {
        size /= 1024;
        unit++;
    }
    if (unit < 0) {
        snprintf(text, SIZE_TEXT, "%llu bytes", (unsigned long long)bytes);
    } else {
        snprintf(text, SIZE_TEXT, "%.4g %s (%llu bytes)", size, units[unit],
                 (unsigned long long)bytes);
    }
    return text;
}

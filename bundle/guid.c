/* SPDX-License-Identifier: MIT */
/* See guid.h. */
#include "guid.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

const struct guid guid_of_top = {{0x5f, 0xba, 0xab, 0xe3, 0x69, 0x58, 0x40, 0xff, 0x92, 0xa7, 0x86,
                                  0x0e, 0x32, 0x9a, 0xab, 0x41}};

static int digit(char character)
{
    static const char digits[] = "0123456789abcdef";
    const char *at =
        strchr(digits, character >= 'A' && character <= 'F' ? character + 32 : character);

    return character && at ? (int)(at - digits) : -1;
}

/* A dash stands before these bytes. */
static bool has_dash(unsigned byte)
{
    return byte == 4 || byte == 6 || byte == 8 || byte == 10;
}

bool guid_parse(const char *text, struct guid *guid)
{
    if (*text++ != '{') {
        return false;
    }
    for (unsigned i = 0; i < sizeof(guid->bytes); i++) {
        if (has_dash(i) && *text++ != '-') {
            return false;
        }
        int high = digit(text[0]), low = high < 0 ? -1 : digit(text[1]);
        if (low < 0) {
            return false;
        }
        guid->bytes[i] = (uint8_t)(high << 4 | low);
        text += 2;
    }
    return text[0] == '}' && !text[1];
}

void guid_print(const struct guid *guid, char text[PLOOP_BUNDLE_GUID_SIZE])
{
    static const char digits[] = "0123456789abcdef";

    *text++ = '{';
    for (unsigned i = 0; i < sizeof(guid->bytes); i++) {
        if (has_dash(i)) {
            *text++ = '-';
        }
        *text++ = digits[guid->bytes[i] >> 4];
        *text++ = digits[guid->bytes[i] & 15];
    }
    *text++ = '}';
    *text = 0;
}

bool guid_equal(const struct guid *one, const struct guid *other)
{
    return memcmp(one->bytes, other->bytes, sizeof(one->bytes)) == 0;
}

bool guid_is_zero(const struct guid *guid)
{
    static const struct guid zero;

    return guid_equal(guid, &zero);
}

int guid_random(struct guid *guid)
{
    ssize_t got = getrandom(guid->bytes, sizeof(guid->bytes), 0);

    if (got != (ssize_t)sizeof(guid->bytes)) {
        return got < 0 ? -errno : -EIO;
    }
    guid->bytes[6] = (uint8_t)((guid->bytes[6] & 0x0f) | 0x40); /* a random one, by RFC 4122 */
    guid->bytes[8] = (uint8_t)((guid->bytes[8] & 0x3f) | 0x80);
    return 0;
}

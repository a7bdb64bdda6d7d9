/* SPDX-License-Identifier: MIT */
/* The digest against RFC 1321's test suite, and around the borders of its blocks. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "run_tests.h"
#include "util/md5.h"

static const struct {
    const char *text, *digest;
} vectors[] = {
    {"", "d41d8cd98f00b204e9800998ecf8427e"},
    {"a", "0cc175b9c0f1b6a831c399e269772661"},
    {"abc", "900150983cd24fb0d6963f7d28e17f72"},
    {"message digest", "f96b697d7cb7938d525a2f31aaf161d0"},
    {"abcdefghijklmnopqrstuvwxyz", "c3fcd3d76192e4007dfb496cca67e13b"},
    {"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
     "d174ab98d277d9f5a5611c2c9f419d9f"},
    {"12345678901234567890123456789012345678901234567890123456789012345678901234567890",
     "57edf4a22be3c955ac49da2e2107b67a"},
    /*
     * 55, 56, 63, 64 and 65 bytes: where the length just fits its block, and where it needs one
     * more
     */
    {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "ef1772b6dff9a122358552954ad0df65"},
    {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
     "3b0c8ac703f828b04c6c197006d17218"},
    {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
     "b06521f39153d618550606be297466d5"},
    {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
     "014842d480b571495a4a0363793f7367"},
    {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
     "c743a45e0d2e6a95cb859adae0248435"},
};

static void to_text(const uint8_t *digest, char *text)
{
    for (int i = 0; i < MD5_SIZE; i++) {
        snprintf(text + (size_t)2 * (size_t)i, 3, "%02x", digest[i]);
    }
}

START_TEST(digest_matches)
{
    uint8_t digest[MD5_SIZE];
    char text[2 * MD5_SIZE + 1];

    md5((const uint8_t *)vectors[_i].text, strlen(vectors[_i].text), digest);
    to_text(digest, text);
    ck_assert_str_eq(text, vectors[_i].digest);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("md5");

    tcase_add_loop_test(tests, digest_matches, 0, sizeof(vectors) / sizeof(*vectors));
    return run_case("md5", tests);
}

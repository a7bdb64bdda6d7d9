/* SPDX-License-Identifier: MIT */
/*
 * Every fault of header_faults.h alone, in each base image: every way in agrees with the oracle,
 * and a refusal has a line that names the field and its value.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ploop/ploop.h>

#include "header_faults.h"
#include "hostile.h"
#include "run_tests.h"
#include "util/bytes.h"

enum { STEP_IF_SLOW = 19 };

struct base {
    struct fixture fixture;
    struct fault faults[FAULTS_MAX];
    uint32_t count;
    uint8_t *found;
    uint64_t size;
    char name[80];
};

static void begin(struct base *base, uint32_t number)
{
    struct fault_base made = fault_base(number);

    fault_base_open(&base->fixture, &made);
    base->count = fault_list(&base->fixture, base->faults);
    base->size = base->fixture.size;
    base->found = malloc(base->size);
    memcpy(base->found, base->fixture.bytes, base->size);
    snprintf(base->name, sizeof(base->name), "version %u, %u sectors, %s", made.version,
             made.cluster_sectors, made.extended ? "extension" : "plain");
}

static void put_back(struct base *base)
{
    memcpy(base->fixture.bytes, base->found, base->size);
    base->fixture.size = base->size;
}

static void end(struct base *base)
{
    free(base->found);
    fixture_close(&base->fixture);
}

START_TEST(every_fault)
{
    static struct base base;

    begin(&base, (uint32_t)_i);
    hostile_judge(&base.fixture, base.name);
    for (uint32_t i = 0; i < base.count; i += is_instrumented() ? STEP_IF_SLOW : 1) {
        char fault[64], what[200];

        fault_apply(&base.fixture, &base.faults[i]);
        fault_print(&base.faults[i], fault, sizeof(fault));
        snprintf(what, sizeof(what), "%s: %s", base.name, fault);
        hostile_judge(&base.fixture, what);
        put_back(&base);
    }
    hostile_print("single faults");
    end(&base);
}
END_TEST

/* ---- the text of a refusal ---- */

static bool says_number(const char *message, uint64_t value)
{
    char decimal[32], hex[32];

    snprintf(decimal, sizeof(decimal), "%" PRIu64, value);
    snprintf(hex, sizeof(hex), "0x%" PRIx64, value);
    return strstr(message, decimal) || strstr(message, hex);
}

/* An entry or the extension, as the file has it: the fault may have made a valid one invalid. */
static bool names_what_stands_there(const struct fixture *fixture, const char *message)
{
    uint32_t index, entry;
    uint64_t sector;

    if (sscanf(message, "BAT[%" SCNu32 "]=%" SCNu32, &index, &entry) == 2) {
        return image_entry(fixture->bytes, index) == entry;
    }
    return sscanf(message, "ext_off %" SCNu64, &sector) == 1 &&
           load_le64(fixture->bytes + 56) == sector;
}

static void says(const struct base *base, const struct fault *fault, const char *message)
{
    bool field =
        strstr(message, fault->field) || (fault->related && strstr(message, fault->related));
    bool half = base->fixture.bytes[6] == 't' &&
                strcmp(fault->field, "nb_sectors") == 0; /* version 1 has no more bits of it */
    bool number = says_number(message, half ? (uint32_t)fault->value : fault->value) ||
                  strstr(message, "magic is '");

    must_msg(((field && number) || names_what_stands_there(&base->fixture, message)) &&
                 !strchr(message, '\n') && strlen(message) < 160,
             "%s: %s = %" PRIu64 " is refused with \"%s\"", base->name, fault->field, fault->value,
             message);
}

static uint32_t refusals(struct base *base, const struct fault *fault)
{
    static const uint32_t flags[] = {PLOOP_DEV_READ_ONLY, 0, PLOOP_DEV_RECOVER};
    struct ploop_image_info info = {.size = sizeof(info)};
    int probed = ploop_image_probe(base->fixture.file, &info);
    uint32_t count = 0;

    if (probed) {
        says(base, fault, info.message);
    }
    for (int i = 0; i < 3; i++) {
        char message[256];
        int error = hostile_refusal(&base->fixture, flags[i], message, sizeof(message));

        fixture_reset(&base->fixture);
        if (error == 0) {
            put_back(base);
            fault_apply(&base->fixture, fault);
            continue;
        }
        must(error == -EUCLEAN || (error == -EINVAL && probed == -EINVAL));
        must(!probed || (error == probed && strcmp(message, info.message) == 0));
        says(base, fault, message);
        count++;
    }
    return count;
}

START_TEST(every_refusal_names_the_field_and_the_value)
{
    static struct base base;
    uint32_t count = 0;

    begin(&base, (uint32_t)_i);
    for (uint32_t i = 0; i < base.count; i += is_instrumented() ? STEP_IF_SLOW : 1) {
        fault_apply(&base.fixture, &base.faults[i]);
        count += refusals(&base, &base.faults[i]);
        put_back(&base);
    }
    ck_assert_uint_ge(count, is_instrumented() ? 4 : 100);
    end(&base);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("header_limits");

    tcase_add_loop_test(tests, every_fault, 0, FAULT_BASES);
    tcase_add_loop_test(tests, every_refusal_names_the_field_and_the_value, 0, FAULT_BASES);
    tcase_set_timeout(tests, 250);
    return run_case("header_limits", tests);
}

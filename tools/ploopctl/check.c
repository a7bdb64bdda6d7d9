/* SPDX-License-Identifier: MIT */
/* ploopctl check: is an image sound, and what would make it so. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"
#include "json.h"

enum { EXIT_CORRUPT = 2, EXIT_LEAKS = 3 };

/* What the record callback needs. */
struct report {
    struct json json;
    bool is_json;
    uint64_t records;
};

static const char *kind_name(uint32_t kind)
{
    static const char *const names[] = {
        [PLOOP_CHECK_HEADER] = "header",
        [PLOOP_CHECK_UNCLEAN] = "unclean",
        [PLOOP_CHECK_IN_USE_VALUE] = "in_use_value",
        [PLOOP_CHECK_EMPTY_FLAG] = "empty_flag",
        [PLOOP_CHECK_ENTRY_RANGE] = "entry_range",
        [PLOOP_CHECK_ENTRY_GRID] = "entry_grid",
        [PLOOP_CHECK_ENTRY_DUPLICATE] = "entry_duplicate",
        [PLOOP_CHECK_ENTRY_BEYOND] = "entry_beyond",
        [PLOOP_CHECK_LEAK] = "leak",
        [PLOOP_CHECK_EXTENSION] = "extension",
        [PLOOP_CHECK_READ] = "read",
    };
    return kind < sizeof(names) / sizeof(names[0]) && names[kind] ? names[kind] : "other";
}

static const char *repair_name(uint32_t repair)
{
    switch (repair) {
    case 0:
        return NULL;
    case PLOOP_REPAIR_LEAKS:
        return "leaks";
    case PLOOP_REPAIR_UNCLEAN:
        return "unclean";
    default:
        return "all";
    }
}

static bool is_leak(uint32_t kind)
{
    return kind == PLOOP_CHECK_LEAK || kind == PLOOP_CHECK_ENTRY_BEYOND;
}

static void print_record(void *user_data, const struct ploop_check_record *record, const char *text)
{
    struct report *report = user_data;
    struct json *json = &report->json;

    report->records++;
    if (!report->is_json) {
        printf("%s: %s\n", is_leak(record->kind) ? "leak" : "error", text);
        return;
    }
    json_begin_object(json, NULL);
    json_string(json, "kind", kind_name(record->kind));
    json_number_or_null(json, "guest_cluster", record->guest_cluster);
    json_number_or_null(json, "host_offset", record->host_offset);
    json_number(json, "count", record->count);
    json_string(json, "repair", repair_name(record->repair));
    json_string(json, "text", text);
    json_end_object(json);
}

static int status_of(const struct ploop_check_result *result)
{
    return result->errors ? EXIT_CORRUPT : result->leaks ? EXIT_LEAKS : EXIT_SUCCESS;
}

static const char *status_name(int status)
{
    static const char *const names[] = {
        [EXIT_SUCCESS] = "clean", [EXIT_FAILURE] = "failed", [EXIT_CORRUPT] = "corrupt", [EXIT_LEAKS] = "leaks"};
    return names[status];
}

/* Errors and leaks are those found, before a repair; `status` is of the image as it is now. */
static void print_result(const char *path, const struct ploop_check_result *result, int status)
{
    printf("%s: ", path);
    if (result->errors || result->leaks) {
        printf("%llu error%s, %llu leaked cluster%s", (unsigned long long)result->errors, result->errors == 1 ? "" : "s",
               (unsigned long long)result->leaks, result->leaks == 1 ? "" : "s");
    } else {
        printf("clean");
    }
    if (result->repaired) {
        printf(", %llu repaired: now %s", (unsigned long long)result->repaired, status_name(status));
    } else if (status == EXIT_CORRUPT && result->recoverable) {
        printf(", recoverable");
    }
    printf("\n");
}

static void print_result_json(struct json *json, const struct ploop_check_result *result, int status)
{
    json_end_array(json);
    json_number(json, "errors", result->errors);
    json_number(json, "leaks", result->leaks);
    json_number(json, "repaired", result->repaired);
    json_number(json, "mapped", result->mapped);
    json_bool(json, "recoverable", result->recoverable);
    json_string(json, "result", status_name(status));
    json_end_object(json);
}

/* The check, and after a repair another one that only counts: what that finds decides, the repair's success is not taken on trust.
 */
static int check_and_print(struct image *image, bool is_json, uint32_t repair)
{
    struct report report = {.is_json = is_json};
    struct ploop_check_options options = {.size = sizeof(options), .repair = repair};
    struct ploop_check_result result = {.size = sizeof(result)};

    options.record = print_record;
    options.user_data = &report;
    if (is_json) {
        json_begin_object(&report.json, NULL);
        json_string(&report.json, "image", image->path);
        json_begin_array(&report.json, "records");
    }
    int error = ploop_image_check(image->file, &options, &result);
    struct ploop_check_result now = result;
    if (!error && result.repaired) {
        error = ploop_image_check(image->file, NULL, &now);
    }
    int status = error && error != -EUCLEAN ? EXIT_FAILURE : status_of(&now);
    if (is_json) {
        print_result_json(&report.json, &result, status);
    } else if (status != EXIT_FAILURE) {
        print_result(image->path, &result, status);
    }
    if (status == EXIT_FAILURE) {
        complain(image->path, "%s", error == -EFBIG ? "its BAT needs more memory than a check may take, 1 GiB" : reason(error));
    }
    return status;
}

static int check(const char *path, bool is_json, uint32_t repair)
{
    struct image image = {.path = path};

    if (open_file(path, repair ? PLOOP_FILE_READ_WRITE : PLOOP_FILE_READ_ONLY, &image.file)) {
        return EXIT_FAILURE;
    }
    int error = image_probe(&image);
    int status = error && error != -EUCLEAN ? complain_of_header(&image, error) : check_and_print(&image, is_json, repair);
    image_close(&image);
    return status;
}

/* The PLOOP_REPAIR_ flags of a --repair word; 0 where there is no such word. */
static uint32_t parse_repair(const char *word)
{
    static const struct {
        const char *word;
        uint32_t repair;
    } words[] = {
        {"leaks", PLOOP_REPAIR_LEAKS},
        {"unclean", PLOOP_REPAIR_UNCLEAN},
        {"all", PLOOP_REPAIR_LEAKS | PLOOP_REPAIR_UNCLEAN | PLOOP_REPAIR_ENTRIES},
    };
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strcmp(word, words[i].word) == 0) {
            return words[i].repair;
        }
    }
    complain_usage(&check_command, "--repair %s is none of leaks, unclean and all", word);
    return 0;
}

static int run(int argc, char **argv)
{
    static const struct option options[] = {
        {"json", no_argument, 0, 'j'}, {"repair", required_argument, 0, 'r'}, OPTION_HELP_ENTRY, {0}};
    uint32_t repair = 0;
    bool json = false;
    int option;

    while ((option = next_option(&check_command, argc, argv, options)) != OPTION_END) {
        if (option == 'j') {
            json = true;
        } else if (option != 'r' || (repair = parse_repair(optarg)) == 0) {
            return EXIT_FAILURE;
        }
    }
    if (!has_arguments(&check_command, argc, 1)) {
        return EXIT_FAILURE;
    }
    return check(argv[optind], json, repair);
}

const struct command check_command = {
    .name = "check",
    .synopsis = "[--json] [--repair leaks|unclean|all] IMAGE",
    .summary = "Check an image; the exit status is 0 clean, 1 not checked, 2 corrupt, 3 leaks only",
    .details = "      --json             for programs; sizes and offsets in bytes\n"
               "      --repair WHAT      leaks: give back clusters that nothing refers to\n"
               "                         unclean: clear the mark of an image that was not closed cleanly\n"
               "                         all: these, and entries that cannot be right\n"
               "Without --repair nothing is changed.\n",
    .run = run,
};

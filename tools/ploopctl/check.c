/* SPDX-License-Identifier: MIT */
/*
 * ploopctl check: check an image, and repair it. Backing files are checked each alone, lowest
 * first, and then whether all files fit together; the findings are counted together.
 */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bundle.h"
#include "common.h"
#include "json.h"
#include "progress.h"
#include "split.h"

enum { EXIT_CORRUPT = 2, EXIT_LEAKS = 3 };
enum { KIND_MISFIT = 0 }; /* of a stack; the library's kinds are for one image */

/* The findings so far, and how they are printed. */
struct report {
    struct json json;
    bool is_json;
    bool has_colour;
    struct progress progress;         /* on a terminal */
    const char *path;                 /* of the delta being checked */
    struct ploop_check_result result; /* of all files */
    bool fits;                        /* the headers are valid so far */
    int status;                       /* the worst */
};

static atomic_bool is_interrupted;

static void interrupt(int signal)
{
    (void)signal;
    is_interrupted = true;
}

static int on_progress(void *user_data, uint64_t done, uint64_t total)
{
    struct report *report = user_data;

    progress_set_total(&report->progress, total);
    progress_update(&report->progress, done);
    return is_interrupted;
}

/* On a terminal, unless NO_COLOR is there and not empty (no-color.org). */
static bool wants_colour(void)
{
    const char *refused = getenv("NO_COLOR"), *terminal = getenv("TERM");

    return isatty(STDOUT_FILENO) == 1 && !(refused && refused[0]) && terminal &&
           strcmp(terminal, "dumb") != 0;
}

static const char *kind_name(uint32_t kind)
{
    static const char *const names[] = {
        [KIND_MISFIT] = "misfit",
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
        [PLOOP_CHECK_ENTRY_CUT] = "entry_cut",
        [PLOOP_CHECK_VOID_EXTENSION] = "void_extension",
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
    case PLOOP_REPAIR_CUT:
        return "cut";
    default:
        return "all";
    }
}

static bool is_leak(uint32_t kind)
{
    return kind == PLOOP_CHECK_LEAK || kind == PLOOP_CHECK_ENTRY_BEYOND;
}

static const char *severity_name(uint32_t kind)
{
    bool is_note = kind == PLOOP_CHECK_IN_USE_VALUE || kind == PLOOP_CHECK_VOID_EXTENSION;

    return is_leak(kind) ? "leak" : is_note ? "note" : "error";
}

static void print_record(void *user_data, const struct ploop_check_record *record, const char *text)
{
    struct report *report = user_data;
    struct json *json = &report->json;

    progress_clear(&report->progress);
    if (!report->is_json && report->has_colour) {
        const char *severity = severity_name(record->kind);
        int colour = severity[0] == 'e' ? 31 : severity[0] == 'l' ? 33 : 36;

        printf("\033[%dm%s\033[0m: %s\n", colour, severity, text);
        return;
    }
    if (!report->is_json) {
        printf("%s: %s\n", severity_name(record->kind), text);
        return;
    }
    json_begin_object(json, NULL);
    json_string(json, "image", report->path);
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
    static const char *const names[] = {[EXIT_SUCCESS] = "clean",
                                        [EXIT_FAILURE] = "failed",
                                        [EXIT_CORRUPT] = "corrupt",
                                        [EXIT_LEAKS] = "leaks"};
    return names[status];
}

/* Errors and leaks are those found before a repair; `status` describes the image as it is now. */
static void print_result(const char *path, const struct ploop_check_result *result, int status)
{
    printf("%s: ", path);
    if (result->errors || result->leaks) {
        printf("%llu error%s, %llu leaked cluster%s", (unsigned long long)result->errors,
               result->errors == 1 ? "" : "s", (unsigned long long)result->leaks,
               result->leaks == 1 ? "" : "s");
    } else {
        printf("clean");
    }
    if (result->free) {
        printf(", %llu free cluster%s", (unsigned long long)result->free,
               result->free == 1 ? "" : "s");
    }
    if (result->repaired) {
        printf(", %llu repaired: now %s", (unsigned long long)result->repaired,
               status_name(status));
    } else if (status == EXIT_CORRUPT && result->recoverable) {
        printf(", recoverable");
    }
    printf("\n");
}

static void print_result_json(struct json *json, const struct report *report)
{
    const struct ploop_check_result *result = &report->result;

    json_end_array(json);
    json_number(json, "errors", result->errors);
    json_number(json, "leaks", result->leaks);
    json_number(json, "free", result->free);
    json_number(json, "notes", result->notes);
    json_number(json, "repaired", result->repaired);
    json_number(json, "mapped", result->mapped);
    json_bool(json, "recoverable", result->recoverable);
    json_string(json, "result", status_name(report->status));
    json_end_object(json);
}

/* A check that itself failed is the worst status. */
static void add_status(struct report *report, int status)
{
    static const int severity[] = {
        [EXIT_SUCCESS] = 0, [EXIT_LEAKS] = 1, [EXIT_CORRUPT] = 2, [EXIT_FAILURE] = 3};

    if (severity[status] > severity[report->status]) {
        report->status = status;
    }
}

static void add_result(struct report *report, const struct ploop_check_result *result)
{
    struct ploop_check_result *sum = &report->result;

    sum->errors += result->errors;
    sum->leaks += result->leaks;
    sum->notes += result->notes;
    sum->free += result->free;
    sum->repaired += result->repaired;
    sum->mapped += result->mapped;
    sum->recoverable &= result->recoverable;
}

static const char *check_reason(int error)
{
    switch (error) {
    case -ECANCELED:
        return "interrupted";
    case -EFBIG:
        return "its BAT needs more memory than a check may use, 1 GiB";
    case -EBUSY:
        return "part of it stays in the page cache, which may show data that the disk has lost; "
               "end the programs that map the file, or use --cached";
    default:
        return reason(error);
    }
}

/* Leaks are of files only. */
static void note_device(const struct report *report, ploop_file *file, uint32_t repair)
{
    struct ploop_file_info info = {.size = sizeof(info)};

    if (repair & PLOOP_REPAIR_LEAKS && !report->is_json && !ploop_file_info(file, &info) &&
        info.capabilities & PLOOP_FILE_FIXED_SIZE) {
        printf("note: on a block device nothing leaks: what the image does not use is free\n");
    }
}

/*
 * Check; after a repair, check again and only count: the second check decides the result, not the
 * repair's own report.
 */
static void check_delta(struct report *report, const char *path, ploop_file *file, uint32_t repair)
{
    struct ploop_check_options options = {.size = sizeof(options), .repair = repair};
    struct ploop_check_result result = {.size = sizeof(result)};

    options.record = print_record;
    options.progress = on_progress;
    options.user_data = report;
    report->path = path;
    progress_begin_steps(&report->progress);
    int error = ploop_image_check(file, &options, &result);
    progress_end(&report->progress, !error);
    struct ploop_check_result now = result;
    note_device(report, file, repair);
    if (!error && result.repaired) {
        error = ploop_image_check(file, NULL, &now);
    }
    int status = error && error != -EUCLEAN ? EXIT_FAILURE : status_of(&now);
    if (status == EXIT_FAILURE) {
        complain(path, "cannot %s: %s", repair ? "repair" : "check", check_reason(error));
    } else if (!report->is_json) {
        print_result(path, &result, status);
    }
    add_result(report, &result);
    add_status(report, status);
}

/*
 * A file that is no image at all is a failure; the check reports an image with an invalid header.
 */
static bool has_header(struct report *report, const char *path, ploop_file *file)
{
    struct ploop_image_info info = {0};
    int error = probe(file, &info);

    report->fits &= !error;
    if (error && error != -EUCLEAN) {
        add_status(report, complain_of_header(path, &info, error));
    }
    return !error || error == -EUCLEAN;
}

static bool have_headers(struct report *report, const struct image *image)
{
    bool have = true;

    for (uint32_t i = image->has_raw_base; i < image->base_count && have; i++) {
        have = has_header(report, image->bases[i].path, image->bases[i].file);
    }
    return have && has_header(report, image->path, image->file);
}

/*
 * Files with valid headers may not fit together, for example a disk larger than the one above it.
 */
static void check_fit(struct report *report, struct image *image)
{
    struct ploop_check_record record = {
        .size = sizeof(record), .guest_cluster = UINT64_MAX, .host_offset = UINT64_MAX, .count = 1};
    struct ploop_check_result result = {.size = sizeof(result), .errors = 1};
    int error = image_try_device(image, NULL);

    if (!error) {
        return;
    }
    const char *text = image_blame(image, error, &report->path);
    if (error != -EUCLEAN) {
        add_status(report, complain(report->path, "%s", text));
        return;
    }
    record.kind = KIND_MISFIT;
    print_record(report, &record, text);
    add_result(report, &result);
    add_status(report, EXIT_CORRUPT);
    if (!report->is_json) {
        printf("%s: does not fit\n", report->path);
    }
}

static void check_stack(struct report *report, struct image *image, uint32_t repair)
{
    if (report->is_json) {
        json_begin_object(&report->json, NULL);
        json_string(&report->json, "image", image->path);
        json_begin_array(&report->json, "records");
    }
    for (uint32_t i = image->has_raw_base; i < image->base_count; i++) {
        check_delta(report, image->bases[i].path, image->bases[i].file, 0);
    }
    check_delta(report, image->path, image->file, repair);
    if (image->base_count && report->fits && report->status != EXIT_FAILURE) {
        check_fit(report, image);
    }
    if (report->is_json) {
        print_result_json(&report->json, report);
    }
}

static int check(struct json *json, struct image *image, bool is_json, uint32_t repair)
{
    struct report report = {
        .json = *json, .is_json = is_json, .result = {.recoverable = 1}, .fits = true};

    report.has_colour = wants_colour();
    if (image_open_files(image, repair ? PLOOP_FILE_READ_WRITE : PLOOP_FILE_READ_ONLY)) {
        return EXIT_FAILURE;
    }
    if (have_headers(&report, image)) {
        check_stack(&report, image, repair);
    }
    image_close(image);
    *json = report.json;
    return report.status;
}

/* ---- Split disks ---- */

/* Whether a raw part, which has nothing else to be checked, is as long as it has to be. */
static int check_raw(const struct image *image, bool is_json, uint64_t size)
{
    struct ploop_file_info info = {.size = sizeof(info)};
    ploop_file *file;

    if (open_file(image->path, PLOOP_FILE_READ_ONLY, &file)) {
        return EXIT_FAILURE;
    }
    int error = ploop_file_info(file, &info);
    ploop_file_close(file);
    if (error || info.file_size < size) {
        return complain(image->path, "a raw disk of %llu bytes, not %llu",
                        (unsigned long long)info.file_size, (unsigned long long)size);
    }
    if (!is_json) {
        printf("%s: raw\n", image->path);
    }
    return EXIT_SUCCESS;
}

/* Part by part; the worst of them is the result. */
static int check_split(struct image *image, bool is_json, uint32_t repair)
{
    const char *path = image->path;
    struct report all = {.is_json = is_json};
    uint32_t count = 1;
    uint64_t size;

    if (is_json) {
        json_begin_object(&all.json, NULL);
        json_string(&all.json, "image", path);
        json_begin_array(&all.json, "parts");
    }
    for (uint32_t i = 0; i < count; i++) {
        bool is_raw = false;
        if (split_part(path, i, image, &is_raw, &count, &size)) {
            return EXIT_FAILURE;
        }
        if (repair && image->base_count) {
            return complain(path, "each image of a stack has to be repaired alone");
        }
        add_status(&all, is_raw ? check_raw(image, is_json, size)
                                : check(&all.json, image, is_json, repair));
    }
    if (is_json) {
        json_end_array(&all.json);
        json_string(&all.json, "result", status_name(all.status));
        json_end_object(&all.json);
    }
    split_close();
    return all.status;
}

/* The PLOOP_REPAIR_ flags of an argument of --repair; 0: unknown. */
static uint32_t parse_repair(const char *word)
{
    static const struct {
        const char *word;
        uint32_t repair;
    } words[] = {
        {"leaks", PLOOP_REPAIR_LEAKS},
        {"unclean", PLOOP_REPAIR_UNCLEAN},
        {"cut", PLOOP_REPAIR_CUT},
        {"all",
         PLOOP_REPAIR_LEAKS | PLOOP_REPAIR_UNCLEAN | PLOOP_REPAIR_ENTRIES | PLOOP_REPAIR_CUT},
    };
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strcmp(word, words[i].word) == 0) {
            return words[i].repair;
        }
    }
    complain_usage(&check_command,
                   "invalid argument '%s' for --repair: expected leaks, unclean, cut or all", word);
    return 0;
}

static int run(int argc, char **argv)
{
    static const struct option options[] = {{"cached", no_argument, 0, 'c'},
                                            {"json", no_argument, 0, 'j'},
                                            {"repair", required_argument, 0, 'r'},
                                            OPTION_FORCE_SHARE_ENTRY,
                                            OPTION_BASE_ENTRIES,
                                            OPTION_HELP_ENTRY,
                                            {0}};
    const struct sigaction action = {.sa_handler = interrupt};
    struct json printed = {0};
    struct image image = {0};
    uint32_t repair = 0, cached = 0;
    bool json = false, right = true;
    int option;

    while (right && (option = next_option(&check_command, argc, argv, options)) != OPTION_END) {
        switch (option) {
        case 'c':
            cached = PLOOP_REPAIR_CACHED;
            break;
        case 'j':
            json = true;
            break;
        case 'r':
            repair = parse_repair(optarg);
            right = repair != 0;
            break;
        case OPTION_FORCE_SHARE:
            image.is_shared = true;
            break;
        case OPTION_BASE:
        case OPTION_RAW_BASE:
            right = image_take_base(&check_command, &image, option, optarg);
            break;
        default:
            right = false;
        }
    }
    if (!right || !has_arguments(&check_command, argc, argv, 1)) {
        return EXIT_FAILURE;
    }
    image.path = argv[optind];
    image.is_split = !image.base_count && is_split(image.path);
    if (!image.is_split && bundle_expand(&image, NULL) < 0) {
        return EXIT_FAILURE;
    }
    if (repair && image.base_count) {
        return complain_usage(&check_command,
                              "--repair cannot be combined with --base or --raw-base: repair each "
                              "image alone, then check them together");
    }
    if (repair && image.is_shared) {
        return complain_usage(&check_command, "--repair cannot be combined with --force-share");
    }
    if (cached && !repair) {
        return complain_usage(&check_command, "--cached requires --repair");
    }
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    return image.is_split ? check_split(&image, json, repair | cached)
                          : check(&printed, &image, json, repair | cached);
}

const struct command check_command = {
    .name = "check",
    .synopsis = "[--json] [-U] [--repair leaks|unclean|cut|all [--cached]] " BASE_SYNOPSIS " IMAGE",
    .summary = "Check an image, and repair it with --repair",
    .options =
        "      --json             print JSON, with sizes and offsets in bytes\n"
        "      --repair leaks     free clusters that nothing refers to\n"
        "      --repair unclean   clear the in-use mark if there are no other errors\n"
        "      --repair cut       make the file hold its last cluster whole, with zeros for\n"
        "                         what is missing\n"
        "      --repair all       all of these, and fix invalid map entries\n"
        "      --cached           repair even if part of the image stays in the page\n"
        "                         cache, which may show data that the disk has "
        "lost\n" FORCE_SHARE_HELP BASE_OPTIONS,
    .notes = "Without --repair nothing is changed. Backing images are checked too, and whether\n"
             "all images fit together. Ctrl-C ends a repair when what is under way is whole.\n\n"
             "Exit status: 0 clean, 1 wrong call or failure, 2 corrupt, 3 leaks but no errors.\n",
    .examples = "  ploopctl check disk.hds\n"
                "  ploopctl check --repair unclean disk.hds\n"
                "  ploopctl check --base base.hds top.hds\n",
    .run = run,
};

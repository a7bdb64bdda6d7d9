/* SPDX-License-Identifier: MIT */
/* ploopctl bundle: shows, makes and changes bundles. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bundle.h"
#include "bundle_library.h"
#include "job.h"
#include "json.h"

struct request {
    const char *path;
    const char *guid; /* NULL: none given */
    bool json, is_down;
    uint64_t rate;
    struct new_image new_image;
};

/* ---- Showing ---- */

static const char *type_of(uint32_t type)
{
    return type == PLOOP_BUNDLE_PLAIN ? "plain" : "expanding";
}

static struct ploop_bundle_snapshot snapshot_of(const ploop_bundle *bundle, uint32_t number)
{
    struct ploop_bundle_snapshot snapshot = {.size = sizeof(snapshot)};

    ploop_bundle_snapshot(bundle, number, &snapshot);
    return snapshot;
}

static void print_snapshots_json(struct json *json, const ploop_bundle *bundle,
                                 const struct ploop_bundle_info *info)
{
    json_begin_array(json, "snapshots");
    for (uint32_t i = 0; i < info->snapshot_count; i++) {
        struct ploop_bundle_snapshot snapshot = snapshot_of(bundle, i), parent = {0};
        bool has_parent = snapshot.parent != UINT32_MAX;
        if (has_parent) {
            parent = snapshot_of(bundle, snapshot.parent);
        }
        json_begin_object(json, NULL);
        json_string(json, "guid", snapshot.guid);
        json_string(json, "parent", has_parent ? parent.guid : NULL);
        json_bool(json, "top", i == info->top);
        json_end_object(json);
    }
    json_end_array(json);
}

static void print_storages_json(struct json *json, const ploop_bundle *bundle,
                                const struct ploop_bundle_info *info)
{
    json_begin_array(json, "storages");
    for (uint32_t s = 0; s < info->storage_count; s++) {
        struct ploop_bundle_storage storage = {.size = sizeof(storage)};
        ploop_bundle_storage(bundle, s, &storage);
        json_begin_object(json, NULL);
        json_number(json, "start", storage.start);
        json_number(json, "end", storage.end);
        json_number(json, "cluster_size", storage.cluster_size);
        json_begin_array(json, "images");
        for (uint32_t i = 0; i < info->snapshot_count; i++) {
            struct ploop_bundle_image image = {.size = sizeof(image)};
            ploop_bundle_image(bundle, s, i, &image);
            json_begin_object(json, NULL);
            json_string(json, "guid", snapshot_of(bundle, i).guid);
            json_string(json, "type", type_of(image.type));
            json_string(json, "file", image.name);
            json_end_object(json);
        }
        json_end_array(json);
        json_end_object(json);
    }
    json_end_array(json);
}

static void print_json(const struct request *request, const ploop_bundle *bundle, bool is_info)
{
    struct ploop_bundle_info info = {.size = sizeof(info)};
    struct json json = {0};

    ploop_bundle_info(bundle, &info);
    json_begin_object(&json, NULL);
    json_string(&json, "bundle", request->path);
    json_number(&json, "disk_size", info.disk_size);
    json_string(&json, "top", snapshot_of(bundle, info.top).guid);
    print_snapshots_json(&json, bundle, &info);
    if (is_info) {
        print_storages_json(&json, bundle, &info);
    }
    json_end_object(&json);
}

/* A line for each snapshot: a star at the top, its GUID and its parent's. */
static void print_snapshots(const ploop_bundle *bundle)
{
    struct ploop_bundle_info info = {.size = sizeof(info)};

    ploop_bundle_info(bundle, &info);
    for (uint32_t i = 0; i < info.snapshot_count; i++) {
        struct ploop_bundle_snapshot snapshot = snapshot_of(bundle, i);
        printf("%c %s", i == info.top ? '*' : ' ', snapshot.guid);
        if (snapshot.parent != UINT32_MAX) {
            printf(" on %s", snapshot_of(bundle, snapshot.parent).guid);
        }
        putchar('\n');
    }
}

static void print_info(const struct request *request, const ploop_bundle *bundle)
{
    struct ploop_bundle_info info = {.size = sizeof(info)};
    char size[SIZE_TEXT];

    ploop_bundle_info(bundle, &info);
    printf("bundle        %s\n", request->path);
    printf("disk size     %s\n", format_size(info.disk_size, size));
    printf("snapshots     %u, with the top (*)\n", info.snapshot_count);
    print_snapshots(bundle);
    for (uint32_t s = 0; s < info.storage_count; s++) {
        struct ploop_bundle_storage storage = {.size = sizeof(storage)};
        ploop_bundle_storage(bundle, s, &storage);
        printf("storage       bytes %llu to %llu, clusters of %s\n",
               (unsigned long long)storage.start, (unsigned long long)storage.end,
               format_size(storage.cluster_size, size));
        for (uint32_t i = 0; i < info.snapshot_count; i++) {
            struct ploop_bundle_image image = {.size = sizeof(image)};
            ploop_bundle_image(bundle, s, i, &image);
            printf("  %s %-9s %s\n", snapshot_of(bundle, i).guid, type_of(image.type), image.name);
        }
    }
}

static int show(const struct request *request, bool is_info)
{
    ploop_bundle *bundle;

    if (bundle_open(request->path, PLOOP_BUNDLE_READ_ONLY, &bundle)) {
        return EXIT_FAILURE;
    }
    if (request->json) {
        print_json(request, bundle, is_info);
    } else if (is_info) {
        print_info(request, bundle);
    } else {
        print_snapshots(bundle);
    }
    ploop_bundle_close(bundle);
    return EXIT_SUCCESS;
}

static int run_info(const struct request *request)
{
    return show(request, true);
}

static int run_list(const struct request *request)
{
    return show(request, false);
}

/* ---- Changing ---- */

static int run_create(const struct request *request)
{
    if (!request->new_image.has_size) {
        return complain_usage(&bundle_command, "--size is required");
    }
    return bundle_create(request->path, &request->new_image) ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int run_snapshot(const struct request *request)
{
    char guid[PLOOP_BUNDLE_GUID_SIZE];
    ploop_bundle *bundle;

    if (bundle_open(request->path, PLOOP_BUNDLE_READ_WRITE, &bundle)) {
        return EXIT_FAILURE;
    }
    int error = bundle_told(request->path, ploop_bundle_take_snapshot(bundle, guid));
    if (!error) {
        puts(guid);
    }
    ploop_bundle_close(bundle);
    return error ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* The snapshot of the call; without a GUID the top. 0 or -errno, printed. */
static int find(const struct request *request, const ploop_bundle *bundle, uint32_t *number)
{
    struct ploop_bundle_info info = {.size = sizeof(info)};

    if (!request->guid) {
        ploop_bundle_info(bundle, &info);
        *number = info.top;
        return 0;
    }
    int error = ploop_bundle_find(bundle, request->guid, number);
    if (error) {
        complain(request->path,
                 error == -EINVAL ? "'%s' is not a GUID in braces" : "it has no snapshot %s",
                 request->guid);
    }
    return error;
}

static int change(const struct request *request, int (*how)(ploop_bundle *, uint32_t))
{
    ploop_bundle *bundle;
    uint32_t number;

    if (bundle_open_long(request->path, request->rate, &bundle)) {
        return EXIT_FAILURE;
    }
    int error = find(request, bundle, &number);
    if (!error) {
        error = bundle_told_long(request->path, how(bundle, number));
    }
    ploop_bundle_close(bundle);
    return error ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int run_switch(const struct request *request)
{
    return change(request, ploop_bundle_switch);
}

static int run_delete(const struct request *request)
{
    return change(request, ploop_bundle_delete);
}

static int merge_up(ploop_bundle *bundle, uint32_t snapshot)
{
    return ploop_bundle_merge(bundle, snapshot, PLOOP_MERGE_UP);
}

static int merge_down(ploop_bundle *bundle, uint32_t snapshot)
{
    return ploop_bundle_merge(bundle, snapshot, PLOOP_MERGE_DOWN);
}

static int run_merge(const struct request *request)
{
    return change(request, request->is_down ? merge_down : merge_up);
}

/* ---- The command ---- */

static const struct verb {
    const char *name;
    int arguments, optional; /* how many, and how many more there may be */
    int (*run)(const struct request *request);
} verbs[] = {{"info", 1, 0, run_info},     {"list", 1, 0, run_list},
             {"create", 1, 0, run_create}, {"snapshot", 1, 0, run_snapshot},
             {"switch", 2, 0, run_switch}, {"delete", 2, 0, run_delete},
             {"merge", 1, 1, run_merge}};

static int run_verb(struct request *request, int argc, char **argv)
{
    const struct verb *end = verbs + sizeof(verbs) / sizeof(verbs[0]), *verb = verbs;

    if (optind == argc) {
        return complain_usage(&bundle_command, "missing argument");
    }
    while (verb < end && strcmp(verb->name, argv[optind]) != 0) {
        verb++;
    }
    if (verb == end) {
        return complain_usage(&bundle_command, "unknown action '%s'", argv[optind]);
    }
    optind++;
    int count = verb->arguments;
    if (argc - optind > count && argc - optind <= count + verb->optional) {
        count = argc - optind;
    }
    if (!has_arguments(&bundle_command, argc, argv, count)) {
        return EXIT_FAILURE;
    }
    request->path = argv[optind];
    request->guid = count > 1 ? argv[optind + 1] : NULL;
    return verb->run(request);
}

static int run(int argc, char **argv)
{
    static const struct option options[] = {{"json", no_argument, 0, 'j'},
                                            {"size", required_argument, 0, 's'},
                                            {"cluster", required_argument, 0, 'c'},
                                            {"v1", no_argument, 0, '1'},
                                            {"down", no_argument, 0, 'd'},
                                            {"rate", required_argument, 0, 'r'},
                                            OPTION_HELP_ENTRY,
                                            {0}};
    struct request request = {0};
    bool right = true;
    int option;

    new_image_init(&request.new_image);
    while (right && (option = next_option(&bundle_command, argc, argv, options)) != OPTION_END) {
        switch (option) {
        case 'j':
            request.json = true;
            break;
        case 's':
            right = new_image_size(&bundle_command, &request.new_image, optarg);
            break;
        case 'c':
            right = new_image_cluster(&bundle_command, &request.new_image, optarg);
            break;
        case '1':
            request.new_image.options.version = 1;
            break;
        case 'd':
            request.is_down = true;
            break;
        case 'r':
            right = take_rate(&bundle_command, &request.rate, optarg);
            break;
        default:
            right = false;
        }
    }
    return right ? run_verb(&request, argc, argv) : EXIT_FAILURE;
}

const struct command bundle_command = {
    .name = "bundle",
    .synopsis = "info|list [--json] DIR | create --size SIZE [--cluster SIZE] [--v1] DIR |\n"
                "                       snapshot DIR | switch|delete DIR GUID |\n"
                "                       merge [--down] [--rate SIZE] DIR [GUID]",
    .summary = "Show, make and change a bundle, a disk with a DiskDescriptor.xml",
    .options = "      --json             print JSON, with sizes and offsets in bytes\n"
               "      --size SIZE        disk size, a multiple of 512 bytes\n"
               "      --cluster SIZE     cluster size: power of two from 4K to 64M (default 1M)\n"
               "      --v1               as Parallels Desktop has it; else as OpenVZ\n"
               "      --down             merge into the parent's image, which is changed at once\n"
               "      --rate SIZE        copy at most so many bytes a second\n",
    .notes = "info      the disk, its snapshots and its images\n"
             "list      its snapshots\n"
             "create    a directory with an empty disk; it must not exist\n"
             "snapshot  keep the disk's present state; prints the GUID of it\n"
             "switch    go back to a snapshot: what was written since the last one is removed\n"
             "delete    remove a snapshot; those built on it get what they need of it\n"
             "merge     a snapshot, or the disk's present state, with its parent, which is lost\n\n"
             "No other program may use the disk while it is changed.\n",
    .examples = "  ploopctl bundle create --size 10G disk.hdd\n"
                "  ploopctl bundle snapshot disk.hdd\n",
    .run = run,
};

/* SPDX-License-Identifier: MIT */
/*
 * What it costs to open and to check an image with a big map: CPU time and memory, beside QEMU.
 *
 *   load DIR [--json]
 *
 * Makes sparse images of almost 16 TiB (ext4 has no larger files) with clusters of 1 MiB in the
 * directory: every cluster mapped, in order or shuffled, or none. Each figure is the least of
 * several processes, which alternate with the peer's: CPU time less that for an image of 1 GiB,
 * so that a program's start does not count, and the peak of resident memory. Lines of JSON instead
 * of the table with --json.
 */
#include <ploop/ploop.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* QEMU takes the end of the BAT in an empty image for a leak. */
enum { QEMU_FOUND_LEAKS = 3 };

enum { RUNS = 5, CLUSTER = 1 << 20, HEADER = 64, SMALL = 1024, BIG = (16 << 20) - 128 };

enum kind { IN_ORDER, SHUFFLED, EMPTY, KINDS };
static const char *const kind_names[KINDS] = {"all mapped in order", "all mapped, shuffled",
                                              "empty"};

enum action { WRITING, READING, CHECK, INFO, ACTIONS };
static const char *const action_names[ACTIONS] = {"open for writing", "open for reading", "check",
                                                  "info"};

struct cost {
    double cpu_ms, memory_mib;
};

/* The figures' rows; bench/limits has no target for the shuffled map. */
static const char *const rows[KINDS] = {"P9", "P9", "P10"};

static void must(int error, const char *what)
{
    if (error < 0) {
        fprintf(stderr, "load: %s: %s\n", what, strerror(-error));
        exit(1);
    }
}

/* ---- images ---- */

/* The order is the same in each run. */
static void shuffle(uint32_t *entries, uint32_t count)
{
    uint64_t state = 1;
    for (uint32_t i = count - 1; i > 0; i--) {
        state = state * UINT64_C(6364136223846793005) + 1;
        uint32_t other = (uint32_t)((state >> 32) % (i + 1)), entry = entries[i];
        entries[i] = entries[other];
        entries[other] = entry;
    }
}

static void put_le32(uint32_t *to, uint32_t value)
{
    const uint8_t bytes[4] = {(uint8_t)value, (uint8_t)(value >> 8), (uint8_t)(value >> 16),
                              (uint8_t)(value >> 24)};
    memcpy(to, bytes, sizeof(bytes));
}

static void map_all(ploop_file *file, uint32_t clusters, bool in_order)
{
    struct ploop_image_info info = {.size = sizeof(info)};
    must(ploop_image_probe(file, &info), "probe");
    uint32_t *entries = malloc(clusters * sizeof(*entries)),
             first = (uint32_t)(info.data_offset / CLUSTER);
    for (uint32_t i = 0; i < clusters; i++) {
        entries[i] = first + i;
    }
    if (!in_order) {
        shuffle(entries, clusters);
    }
    for (uint32_t i = 0; i < clusters; i++) {
        put_le32(&entries[i], entries[i]);
    }
    must((int)ploop_file_pwrite(file, entries, clusters * sizeof(*entries), HEADER), "write");
    must(ploop_file_truncate(file, info.data_offset + (uint64_t)clusters * CLUSTER), "truncate");
    free(entries);
}

static void make_image(const char *path, enum kind kind, uint32_t clusters)
{
    const struct ploop_image_options options = {.size = sizeof(options),
                                                .disk_size = (uint64_t)clusters * CLUSTER,
                                                .cluster_size = CLUSTER};
    ploop_file *file;
    unlink(path);
    must(ploop_file_open_posix(path, PLOOP_FILE_READ_WRITE | PLOOP_FILE_CREATE, &file), path);
    must(ploop_image_create(file, &options), "create");
    if (kind != EMPTY) {
        map_all(file, clusters, kind == IN_ORDER);
    }
    must(ploop_file_sync(file), "sync");
    ploop_file_close(file);
}

/* ---- what is measured, each in a child ---- */

static void ours(const char *path, enum action action)
{
    bool writing = action == WRITING;
    ploop_file *file;
    must(ploop_file_open_posix(path, writing ? PLOOP_FILE_READ_WRITE : PLOOP_FILE_READ_ONLY, &file),
         path);
    if (action == INFO) {
        struct ploop_image_info info = {.size = sizeof(info)};
        must(ploop_image_probe(file, &info), "probe");
    } else if (action == CHECK) {
        struct ploop_check_result result = {.size = sizeof(result)};
        must(ploop_image_check(file, NULL, &result), "check");
        must(result.errors + result.leaks ? -EUCLEAN : 0, "check");
    } else {
        struct ploop_dev_config config;
        ploop_dev *dev;
        ploop_dev_config_init(&config, sizeof(config));
        config.flags = writing ? 0 : PLOOP_DEV_READ_ONLY;
        must(ploop_dev_open(&file, 1, &config, &dev), "open");
        must(ploop_dev_close(dev), "close");
    }
    ploop_file_close(file);
}

static void peer(const char *path, enum action action)
{
    char *const writing[] = {"qemu-io", "-f", "parallels", "-c", "quit", (char *)path, NULL};
    char *const reading[] = {"qemu-io", "-r", "-f", "parallels", "-c", "quit", (char *)path, NULL};
    char *const check[] = {"qemu-img", "check", "-q", "-f", "parallels", (char *)path, NULL};
    char *const info[] = {"qemu-img", "info", "-f", "parallels", (char *)path, NULL};
    char *const *const calls[ACTIONS] = {writing, reading, check, info};
    int null = open("/dev/null", O_WRONLY);
    dup2(null, STDOUT_FILENO);
    dup2(null, STDERR_FILENO);
    execvp(calls[action][0], calls[action]);
    _exit(127);
}

typedef void run_fn(const char *path, enum action action);

static struct cost measure(run_fn *run, const char *path, enum action action)
{
    struct rusage usage;
    int status;
    fflush(NULL);
    pid_t child = fork();
    must(child, "fork");
    if (child == 0) {
        run(path, action);
        _exit(0);
    }
    if (wait4(child, &status, 0, &usage) != child || !WIFEXITED(status) ||
        (WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != QEMU_FOUND_LEAKS)) {
        fprintf(stderr, "load: %s of %s failed%s\n", action_names[action], path,
                run == peer ? ", with QEMU" : "");
        exit(1);
    }
    const struct timeval *user = &usage.ru_utime, *kernel = &usage.ru_stime;
    return (struct cost){(double)(user->tv_sec + kernel->tv_sec) * 1e3 +
                             (double)(user->tv_usec + kernel->tv_usec) / 1e3,
                         (double)usage.ru_maxrss / 1024};
}

static void keep_least(struct cost *least, struct cost cost, int run)
{
    least->cpu_ms = run == 0 || cost.cpu_ms < least->cpu_ms ? cost.cpu_ms : least->cpu_ms;
    least->memory_mib =
        run == 0 || cost.memory_mib < least->memory_mib ? cost.memory_mib : least->memory_mib;
}

/* costs[0] is ours, costs[1] the peer's. */
static void compare(const char *big, const char *small, enum action action, struct cost costs[2])
{
    run_fn *const runs[2] = {ours, peer};
    for (int who = 0; who < 2; who++) {
        measure(runs[who], big, action); /* the page cache is warm then */
    }
    struct cost start[2];
    for (int run = 0; run < RUNS; run++) {
        for (int who = 0; who < 2; who++) {
            keep_least(&start[who], measure(runs[who], small, action), run);
            keep_least(&costs[who], measure(runs[who], big, action), run);
        }
    }
    for (int who = 0; who < 2; who++) {
        costs[who].cpu_ms -= start[who].cpu_ms;
    }
}

/* ---- output ---- */

static void print(bool json, enum kind kind, enum action action, const struct cost costs[2])
{
    if (!json) {
        printf("  %-22s%-18s%8.1f%8.1f%10.1f%8.1f\n", kind_names[kind], action_names[action],
               costs[0].cpu_ms, costs[1].cpu_ms, costs[0].memory_mib, costs[1].memory_mib);
        return;
    }
    const char *format = "{\"row\":\"%s\",\"what\":\"%s, %s, %s\",\"ours\":%.1f,\"peer\":%.1f,"
                         "\"unit\":\"%s\"}\n";
    printf(format, rows[kind], action_names[action], kind_names[kind], "CPU", costs[0].cpu_ms,
           costs[1].cpu_ms, "ms");
    printf(format, rows[kind], action_names[action], kind_names[kind], "memory",
           costs[0].memory_mib, costs[1].memory_mib, "MiB");
}

int main(int argc, char **argv)
{
    bool json = argc == 3 && strcmp(argv[2], "--json") == 0;
    char big[4096], small[4096];
    if (argc < 2 || (argc > 2 && !json)) {
        fprintf(stderr, "usage: load DIR [--json]\n");
        return 1;
    }
    snprintf(big, sizeof(big), "%s/load-big.hds", argv[1]);
    snprintf(small, sizeof(small), "%s/load-small.hds", argv[1]);
    if (!json) {
        printf("16 TiB, clusters of 1 MiB                 CPU ms    QEMU memory MiB    QEMU\n");
    }
    for (enum kind kind = 0; kind < KINDS; kind++) {
        make_image(big, kind, BIG);
        make_image(small, kind, SMALL);
        for (enum action action = 0; action < ACTIONS; action++) {
            struct cost costs[2];
            compare(big, small, action, costs);
            print(json, kind, action, costs);
        }
    }
    unlink(big);
    unlink(small);
    return 0;
}

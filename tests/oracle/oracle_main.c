/* SPDX-License-Identifier: MIT */
/*
 * The command line of the oracle in C: check, open, map and dump (the guest's bytes of one delta),
 * with the output of ploop_oracle.py, so that a script can compare the two.
 *
 *   oracle check|open|map|dump IMAGE
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "oracle.h"

static int read_descriptor(void *context, void *buffer, uint64_t length, uint64_t offset)
{
    const int *descriptor = context;
    for (uint64_t done = 0; done < length;) {
        ssize_t count =
            pread(*descriptor, (uint8_t *)buffer + done, length - done, (off_t)(offset + done));
        if (count <= 0)
            return -1;
        done += (uint64_t)count;
    }
    return 0;
}

static bool takes_space(void *context, uint64_t offset, uint64_t length)
{
    off_t data = lseek(*(int *)context, (off_t)offset, SEEK_DATA);
    return data >= 0 && (uint64_t)data < offset + length;
}

struct lines {
    char *leaks; /* printed after the errors */
    size_t length;
};

static void print_line(void *user_data, enum oracle_severity severity, const char *line)
{
    static const char *const names[] = {
        [ORACLE_NOTE] = "note", [ORACLE_ERROR] = "error", [ORACLE_LEAK] = "leak"};
    FILE *leaks = user_data;
    fprintf(severity == ORACLE_LEAK ? leaks : stdout, "%s: %s\n", names[severity], line);
}

static int check(struct oracle *oracle)
{
    struct lines lines = {NULL, 0};
    struct oracle_result result;
    FILE *leaks = open_memstream(&lines.leaks, &lines.length);
    if (!leaks)
        return 1;
    oracle_check(oracle, print_line, leaks, &result);
    fclose(leaks);
    fputs(lines.leaks, stdout);
    free(lines.leaks);
    printf("%" PRIu64 " errors, %" PRIu64 " leaks\n", result.errors, result.leaks);
    return result.errors ? 2 : result.leaks ? 3 : 0;
}

static int dump(struct oracle *oracle)
{
    uint8_t *buffer = malloc(oracle->cluster);
    if (!buffer)
        return 1;
    uint64_t left = oracle->disk_sectors * 512;
    for (uint64_t index = 0; left; index++) {
        int got = oracle_read_cluster(oracle, index, buffer);
        if (got < 0) {
            free(buffer);
            return 2;
        }
        if (!got)
            memset(buffer, 0, oracle->cluster);
        uint64_t part = left < oracle->cluster ? left : oracle->cluster;
        fwrite(buffer, 1, part, stdout);
        left -= part;
    }
    free(buffer);
    return 0;
}

int main(int argc, char **argv)
{
    static const char *const writing[] = {
        [ORACLE_WRITE] = "ok", [ORACLE_RECOVER] = "recover", [ORACLE_REFUSE] = "refuse"};
    struct oracle oracle;
    struct stat status;
    char message[160];
    if (argc != 3) {
        fprintf(stderr, "oracle check|open|map|dump IMAGE\n");
        return 1;
    }
    int descriptor = open(argv[2], O_RDONLY | O_CLOEXEC), code = 1;
    if (descriptor < 0 || fstat(descriptor, &status)) {
        perror(argv[2]);
        return 1;
    }
    switch (oracle_open(&oracle, read_descriptor, &descriptor, (uint64_t)status.st_size, message)) {
    case ORACLE_NOT_AN_IMAGE:
        printf("not an image: %s\n", message);
        return 1;
    case ORACLE_CORRUPT:
        printf("corrupt: %s\n", message);
        return 2;
    case ORACLE_OK:
        oracle.takes_space = takes_space;
        break;
    }
    if (!strcmp(argv[1], "check")) {
        code = check(&oracle);
    } else if (!strcmp(argv[1], "open")) {
        puts(writing[oracle_writing(&oracle)]);
        code = 0;
    } else if (!strcmp(argv[1], "map")) {
        for (uint32_t index = 0; index < oracle.bat_entries; index++)
            if (oracle.bat[index])
                printf("%" PRIu32 " %" PRIu64 "\n", index, oracle_host_offset(&oracle, index));
        code = 0;
    } else if (!strcmp(argv[1], "dump")) {
        code = dump(&oracle);
    }
    oracle_close(&oracle);
    close(descriptor);
    return code;
}

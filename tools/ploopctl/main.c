/* SPDX-License-Identifier: MIT */
/*
 * ploopctl: ploop images from the command line, through the library's public interface only.
 *
 * Each subcommand has its own file with a `struct command`; this file selects one.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"

static const struct command *const commands[] = {
    &create_command,  &info_command,     &check_command,  &map_command,
    &convert_command, &snapshot_command, &merge_command,  &grow_command,
    &compact_command, &bat_command,      &bundle_command,
};

enum { COMMAND_COUNT = sizeof(commands) / sizeof(commands[0]) };

static void print_usage(void)
{
    printf("Usage: ploopctl COMMAND [OPTION]... FILE...\n"
           "Create, inspect, check and convert ploop disk images.\n\nCommands:\n");
    for (int i = 0; i < COMMAND_COUNT; i++) {
        printf("  %-9s%s\n", commands[i]->name, commands[i]->summary);
    }
    printf("\nOptions:\n"
           "  --help     show this help; 'ploopctl COMMAND --help' shows that of a command\n"
           "  --version  show the version\n");
}

static void print_version(void)
{
    uint32_t version = ploop_version();

    printf("ploopctl %u.%u.%u\n", version >> 16, version >> 8 & 0xff, version & 0xff);
}

static const struct command *find_command(const char *name)
{
    for (int i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(commands[i]->name, name) == 0) {
            return commands[i];
        }
    }
    return NULL;
}

static int run(int argc, char **argv)
{
    static const struct option options[] = {
        {"version", no_argument, 0, 'V'}, OPTION_HELP_ENTRY, {0}};
    static char program[] = "ploopctl";

    argv[0] = program; /* getopt's messages begin with it, as ours do */
    switch (getopt_long(argc, argv, "+hV", options,
                        NULL)) { /* + leaves the words after the command to it */
    case OPTION_HELP:
        print_usage();
        return EXIT_SUCCESS;
    case 'V':
        print_version();
        return EXIT_SUCCESS;
    case OPTION_END:
        break;
    default:
        return suggest_help(NULL);
    }
    if (optind == argc) {
        fprintf(stderr, "ploopctl: missing command\n");
        return suggest_help(NULL);
    }
    const struct command *command = find_command(argv[optind]);
    if (!command) {
        fprintf(stderr, "ploopctl: unknown command '%s'\n", argv[optind]);
        return suggest_help(NULL);
    }
    argc -= optind;
    argv += optind;
    argv[0] = program;
    optind = 0; /* glibc: start anew */
    return command->run(argc, argv);
}

int main(int argc, char **argv)
{
    if (argc < 1) {
        return EXIT_FAILURE;
    }
    signal(SIGXFSZ, SIG_IGN); /* a file size limit is an error of the write like any other */
    return finish_output(run(argc, argv));
}

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
    &create_command, &info_command, &check_command, &map_command, &convert_command, &bat_command,
};

enum { COMMAND_COUNT = sizeof(commands) / sizeof(commands[0]) };

static void print_usage(void)
{
    printf("Usage: ploopctl COMMAND ...\nMake, inspect and convert ploop disk images.\n\n");
    for (int i = 0; i < COMMAND_COUNT; i++) {
        printf("  %-9s%s\n", commands[i]->name, commands[i]->summary);
    }
    printf("\n  --help     this text; ploopctl COMMAND --help has a command's options\n"
           "  --version  the version of the library\n");
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
        return EXIT_FAILURE;
    }
    if (optind == argc) {
        return complain("a command is missing", "ploopctl --help lists them");
    }
    const struct command *command = find_command(argv[optind]);
    if (!command) {
        return complain(argv[optind], "no such command; ploopctl --help lists them");
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

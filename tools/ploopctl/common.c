/* SPDX-License-Identifier: MIT */
/* What every subcommand needs: options and error messages. See common.h. */
#include "common.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bundle.h"
#include "split.h"

static void print_help(const struct command *command)
{
    printf("Usage: ploopctl %s %s\n%s.\n\n%s      --help             show this help\n",
           command->name, command->synopsis, command->summary, command->options);
    if (command->notes) {
        printf("\n%s", command->notes);
    }
    printf("\nExamples:\n%s", command->examples);
}

static bool takes(const struct option *options, int value)
{
    while (options->name && options->val != value) {
        options++;
    }
    return options->name != NULL;
}

int next_option(const struct command *command, int argc, char **argv, const struct option *options)
{
    const char *letters = takes(options, OPTION_FORCE_SHARE) ? "hU" : "h";
    int option = getopt_long(argc, argv, letters, options, NULL);

    if (option == OPTION_HELP) {
        print_help(command);
        exit(finish_output(EXIT_SUCCESS));
    }
    if (option == OPTION_WRONG) {
        suggest_help(command); /* getopt has said what is wrong */
    }
    return option;
}

bool has_arguments(const struct command *command, int argc, char **argv, int count)
{
    int given = argc - optind;

    if (given > count) {
        complain_usage(command, "extra argument '%s'", argv[optind + count]);
    } else if (given > 0 && given < count) {
        complain_usage(command, "missing argument after '%s'", argv[argc - 1]);
    } else if (given < count) {
        complain_usage(command, "missing argument");
    }
    return given == count;
}

static bool takes_split(const struct command *command)
{
    return command == &info_command || command == &map_command;
}

int parse_json_and_image(const struct command *command, int argc, char **argv, bool *json,
                         struct image *image)
{
    static const struct option options[] = {{"json", no_argument, 0, 'j'},
                                            OPTION_FORCE_SHARE_ENTRY,
                                            OPTION_BASE_ENTRIES,
                                            OPTION_HELP_ENTRY,
                                            {0}};
    int option;

    *json = false;
    while ((option = next_option(command, argc, argv, options)) != OPTION_END) {
        if (option == 'j') {
            *json = true;
        } else if (option == OPTION_FORCE_SHARE) {
            image->is_shared = true;
        } else if (option == OPTION_WRONG || !image_take_base(command, image, option, optarg)) {
            return EXIT_FAILURE;
        }
    }
    if (!has_arguments(command, argc, argv, 1)) {
        return EXIT_FAILURE;
    }
    image->path = argv[optind];
    image->is_split = takes_split(command) && !image->base_count && is_split(image->path);
    return image->is_split ? 0 : bundle_expand(image, NULL) < 0 ? EXIT_FAILURE : 0;
}

static int print_line(const char *subject, const char *format, va_list arguments)
{
    char text[1024];

    vsnprintf(text, sizeof(text), format, arguments);
    fprintf(stderr, "ploopctl: %s: %s\n", subject, text);
    return EXIT_FAILURE;
}

int complain(const char *subject, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    int status = print_line(subject, format, arguments);
    va_end(arguments);
    return status;
}

int complain_usage(const struct command *command, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    print_line(command->name, format, arguments);
    va_end(arguments);
    return suggest_help(command);
}

int suggest_help(const struct command *command)
{
    fprintf(stderr, "Try 'ploopctl%s%s --help' for more information.\n", command ? " " : "",
            command ? command->name : "");
    return EXIT_FAILURE;
}

void warn(const char *subject, const char *text)
{
    fprintf(stderr, "ploopctl: %s: warning: %s\n", subject, text);
}

const char *reason(int error)
{
    switch (error) {
    case -EAGAIN:
    case -EBUSY:
        return "another process has it open for writing";
    case -EISDIR:
        return "a directory; a bundle names its backing images itself";
    case -ENOTBLK:
        return "not a regular file or block device";
    case -ENOTSUP:
        return "not supported by this version of the library";
    default:
        return strerror(-error);
    }
}

int finish_output(int status)
{
    if (fflush(stdout) == 0 && !ferror(stdout)) {
        return status;
    }
    return complain("standard output", "%s", strerror(errno));
}

/* SPDX-License-Identifier: MIT */
/*
 * Shared by the subcommands of ploopctl: their description, error messages, and opening an image.
 *
 * Every failure is one line on stderr, "ploopctl: SUBJECT: what is wrong: why", printed by the
 * function that finds it; after a wrong call a second line names --help. That function returns
 * EXIT_FAILURE or a negative errno, and its callers pass the value on and print nothing.
 */
#ifndef PLOOPCTL_COMMON_H
#define PLOOPCTL_COMMON_H

#include <getopt.h>
#include <stdbool.h>
#include <stdint.h>

#include <ploop/ploop.h>

/*
 * A subcommand. `run` gets argv[0] "ploopctl" and then the words after the subcommand's name; it
 * returns the exit status.
 */
struct command {
    const char *name;
    const char *synopsis; /* the words after the name */
    const char *summary;
    const char *options;  /* of --help: whole lines */
    const char *notes;    /* the same, below the options; or NULL */
    const char *examples; /* the same, at the end */
    int (*run)(int argc, char **argv);
};

extern const struct command create_command;
extern const struct command snapshot_command;
extern const struct command merge_command;
extern const struct command grow_command;
extern const struct command compact_command;
extern const struct command info_command;
extern const struct command check_command;
extern const struct command map_command;
extern const struct command convert_command;
extern const struct command bat_command;
extern const struct command bundle_command;

/* Results of next_option(), beside the values of the options themselves. */
enum {
    OPTION_END = -1,
    OPTION_WRONG = '?',
    OPTION_HELP = 'h',
    OPTION_BASE = 'b',
    OPTION_FORCE_SHARE = 'U',
    OPTION_RAW_BASE = 'B'
};

#define OPTION_HELP_ENTRY                                                                          \
    {                                                                                              \
        "help", no_argument, 0, OPTION_HELP                                                        \
    }

#define OPTION_FORCE_SHARE_ENTRY                                                                   \
    {                                                                                              \
        "force-share", no_argument, 0, OPTION_FORCE_SHARE                                          \
    }
#define FORCE_SHARE_HELP                                                                           \
    "  -U, --force-share      read without a lock what another process may be changing\n"

/*
 * getopt_long() for a subcommand. Handles --help, which does not return; has printed a message for
 * an invalid option.
 */
int next_option(const struct command *command, int argc, char **argv, const struct option *options);

/* Whether exactly `count` arguments are left after the options; complains if not. */
bool has_arguments(const struct command *command, int argc, char **argv, int count);

/*
 * The entries of --base and --raw-base, for every subcommand that reads an image; image_take_base()
 * handles them.
 */
#define OPTION_BASE_ENTRIES                                                                        \
    {"base", required_argument, 0, OPTION_BASE},                                                   \
    {                                                                                              \
        "raw-base", required_argument, 0, OPTION_RAW_BASE                                          \
    }
#define BASE_SYNOPSIS "[--raw-base FILE] [--base FILE]..."
#define BASE_OPTIONS                                                                               \
    "      --base FILE        backing image; repeat for each, lowest first\n"                      \
    "      --raw-base FILE    raw backing disk, below all others\n"

/* Print one line to stderr. Returns EXIT_FAILURE. */
__attribute__((format(printf, 2, 3))) int complain(const char *subject, const char *format, ...);
/* The same for a wrong call of a subcommand, and a line that names its --help. */
__attribute__((format(printf, 2, 3))) int complain_usage(const struct command *command,
                                                         const char *format, ...);
/* Only the line that names --help, of the program where command is NULL. Returns EXIT_FAILURE. */
int suggest_help(const struct command *command);
void warn(const char *subject, const char *text);

/* The text for a negative errno that came from an image or its file. */
const char *reason(int error);

/*
 * Flush standard output at the end of the program: returns `status`, or EXIT_FAILURE if it could
 * not be written.
 */
int finish_output(int status);

/*
 * Parse a number of bytes, or one of a unit of 1024^n: K, KB or KiB to P, PB or PiB, in either
 * case. With a unit it may have a fraction, which is rounded up to a sector. 0, -EINVAL or
 * -EOVERFLOW.
 */
int parse_size(const char *text, uint64_t *bytes);

enum { SIZE_TEXT = 64 };
/* "1.5 GiB (1610612736 bytes)" for people. Returns text. */
char *format_size(uint64_t bytes, char text[SIZE_TEXT]);

enum { BASES_MAX = 254 };

/* A backing file of the image. */
struct base {
    const char *path;
    ploop_file *file;
    uint32_t flags; /* PLOOP_IMAGE_ ... of its header; a raw file has none */
};

/*
 * An image open for reading, and its backing files, lowest first. Zero it, then call
 * image_take_base(), then image_open().
 */
struct image {
    const char *path;
    ploop_file *file;
    ploop_dev *dev;
    struct ploop_image_info info; /* of the image itself, the top */
    struct base bases[BASES_MAX];
    uint32_t base_count;
    bool has_raw_base; /* bases[0] */
    bool is_split;     /* a bundle's path: split.h has to be asked */
    bool is_shared;    /* by --force-share: files are opened without a lock */
    bool is_changed;   /* a job has come about (job.h), whatever the close said */
};

/* Handle the argument of --base or --raw-base; prints errors. */
bool image_take_base(const struct command *command, struct image *image, int option,
                     const char *path);

/*
 * For subcommands that take --json, --force-share, bases and one image: sets image->path and its
 * bases; for some of them also image->is_split. 0, or the exit status.
 */
int parse_json_and_image(const struct command *command, int argc, char **argv, bool *json,
                         struct image *image);

/* Open a file; prints errors. 0 or -errno. */
int open_file(const char *path, uint32_t flags, ploop_file **file);

/* Read an image's header. 0, or what ploop_image_probe() returns. */
int probe(ploop_file *file, struct ploop_image_info *info);
/* Print what probe() found wrong. Returns EXIT_FAILURE. */
int complain_of_header(const char *path, const struct ploop_image_info *info, int error);

/*
 * Refuse a file that is in the stack twice, where it would lock itself out or be read as its own
 * base; `top`, which may be NULL, is to be the image's new top. Prints errors. 0 or -EINVAL.
 */
int refuse_same_file(const struct image *image, const char *top);

/*
 * Open the image's file with these flags and its bases for reading; prints errors. 0, or -errno
 * with nothing open.
 */
int image_open_files(struct image *image, uint32_t flags);
/* Open all for reading, and read the headers; prints errors. 0, or -errno with nothing open. */
int image_open(struct image *image);

/*
 * Then open them as a read-only device. config may be NULL. 0 or -errno; image_close() in either
 * case.
 */
int image_try_device(struct image *image, const struct ploop_dev_config *config);
/* The reason why image_try_device() failed, with the file at fault. */
const char *image_blame(const struct image *image, int error, const char **path);
/* The two together; prints errors. */
int image_open_device(struct image *image, const struct ploop_dev_config *config);
void image_close(struct image *image);

/* A configuration whose log keeps the last error line, for last_logged(). */
void init_config(struct ploop_dev_config *config);
/*
 * The library's reason for a failure: its last log line, or the text for `error` if there is none.
 */
const char *last_logged(int error);

/* The new image that create and convert are to make. */
struct new_image {
    bool has_size;
    bool has_cluster;
    struct ploop_image_options options;
};
void new_image_init(struct new_image *new_image);
/* Handle the arguments of --size and --cluster; print errors. */
bool new_image_size(const struct command *command, struct new_image *new_image, const char *text);
bool new_image_cluster(const struct command *command, struct new_image *new_image,
                       const char *text);
/* Write it to a new file; prints errors. 0 or -errno. */
int new_image_write(const struct new_image *new_image, const char *path, ploop_file *file);
/* Make a new file's name durable; prints errors. 0 or -errno. */
int sync_directory_of(const char *path);

#endif

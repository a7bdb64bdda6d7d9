/* SPDX-License-Identifier: MIT */
/* A bundle in a directory of its own, made of a text; and what its library said last. */
#ifndef BUNDLE_FIXTURE_H
#define BUNDLE_FIXTURE_H

#include <check.h>
#include <stdbool.h>

#include <ploop/bundle.h>

/* The GUIDs of three snapshots, and none. */
#define GUID_TOP "{5fbaabe3-6958-40ff-92a7-860e329aab41}"
#define GUID_A "{aaaaaaaa-0000-4000-8000-000000000001}"
#define GUID_B "{bbbbbbbb-0000-4000-8000-000000000002}"
#define GUID_NONE "{00000000-0000-0000-0000-000000000000}"

/* The directory, and the last line of the log, with its level. */
extern char bundle_dir[64];
extern char bundle_log[1024];
extern uint32_t bundle_log_level;

/* Before and after each test. */
void bundle_setup(void);
void bundle_teardown(void);

/* A file in the directory, with these bytes; its path lasts until the next call. */
const char *bundle_file(const char *name);
void bundle_write(const char *name, const void *bytes, size_t size);
void bundle_write_xml(const char *text);
/* The whole file as a text, to be freed. */
char *bundle_read(const char *name);
bool bundle_has(const char *name);
/* How many entries the directory has, but for . and .. */
int bundle_entries(void);

/* An XML of the root A, B on it and the top on A: 8 MiB, clusters of 64 KiB, files a, b and top. */
const char *bundle_tree_xml(void);
/* That XML, with its images. */
void bundle_write_tree(void);

/* The text with the first `old` replaced; to be freed. */
char *bundle_replaced(const char *text, const char *old, const char *new);

/* ploop_bundle_open() on the directory, with the log. */
int bundle_open_dir(uint32_t flags, ploop_bundle **bundle);
/* The same, which must succeed. */
ploop_bundle *bundle_opened(uint32_t flags);

#endif

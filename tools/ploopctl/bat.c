/* SPDX-License-Identifier: MIT */
/* ploopctl bat: the pages of the BAT, how full each is, and a picture of where. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"
#include "json.h"

enum {
    PAGE_ENTRIES_MAX = 1024,
    ENTRIES_PER_CHARACTER = 16,
    PICTURE_SIZE = PAGE_ENTRIES_MAX / ENTRIES_PER_CHARACTER + 1
};

/* A page of the BAT. */
struct page {
    uint64_t first_entry; /* its number in the BAT */
    uint32_t number;
    uint32_t entry_count;
    uint32_t mapped;
    char picture[PICTURE_SIZE];
};

/*
 * Equal adjacent pages are printed as one row: pages with nothing mapped, and pages that are full.
 */
struct row {
    struct page first;
    uint32_t page_count;
};

static char shade(uint32_t mapped, uint32_t count)
{
    return mapped == 0 ? '.' : mapped == count ? '#' : mapped * 2 < count ? ':' : '+';
}

static void draw(struct page *page, const uint32_t *entries)
{
    char *at = page->picture;

    for (uint32_t i = 0; i < page->entry_count; i += ENTRIES_PER_CHARACTER) {
        uint32_t end = i + ENTRIES_PER_CHARACTER < page->entry_count ? i + ENTRIES_PER_CHARACTER
                                                                     : page->entry_count;
        uint32_t mapped = 0;
        for (uint32_t entry = i; entry < end; entry++) {
            mapped += entries[entry] != 0;
        }
        *at++ = shade(mapped, end - i);
    }
    *at = '\0';
}

/* page->first_entry is set by the caller. 0 or -errno. */
static int read_page(ploop_dev *dev, uint32_t number, struct page *page)
{
    uint32_t entries[PAGE_ENTRIES_MAX];
    struct ploop_bat_page_info info = {.size = sizeof(info)};
    int count = ploop_bat_page_read(dev, number, entries, PAGE_ENTRIES_MAX);
    int error = count < 0 ? count : ploop_bat_page_info(dev, number, &info);

    if (error) {
        return error;
    }
    page->number = number;
    page->entry_count = (uint32_t)count;
    page->mapped = info.mapped;
    draw(page, entries);
    return 0;
}

static void print_row(const struct row *row)
{
    char pages[32];

    if (row->page_count == 0) {
        return;
    }
    snprintf(pages, sizeof(pages), row->page_count == 1 ? "%u" : "%u-%u", row->first.number,
             row->first.number + row->page_count - 1);
    printf("%17s %8u %8u  %s\n", pages, row->first.entry_count, row->first.mapped,
           row->first.picture);
}

static bool can_share_row(const struct page *page, const struct page *next)
{
    return page->entry_count == next->entry_count && page->mapped == next->mapped &&
           strcmp(page->picture, next->picture) == 0 &&
           strspn(page->picture, page->picture[0] == '#' ? "#" : ".") == strlen(page->picture);
}

static void add_to_rows(struct row *row, const struct page *page)
{
    if (row->page_count && can_share_row(&row->first, page)) {
        row->page_count++;
        return;
    }
    print_row(row);
    *row = (struct row){.first = *page, .page_count = 1};
}

static void print_page_json(struct json *json, const struct page *page)
{
    json_begin_object(json, NULL);
    json_number(json, "page", page->number);
    json_number(json, "first_entry", page->first_entry);
    json_number(json, "entries", page->entry_count);
    json_number(json, "mapped", page->mapped);
    json_string(json, "picture", page->picture);
    json_end_object(json);
}

/* Called for each page, in order. */
typedef void page_fn(void *output, const struct page *page);

static int for_each_page(ploop_dev *dev, page_fn *print, void *output)
{
    struct page page = {0};
    int error = 0;

    for (uint32_t number = 0; number < ploop_bat_page_count(dev) && !error; number++) {
        error = read_page(dev, number, &page);
        if (!error) {
            print(output, &page);
            page.first_entry += page.entry_count;
        }
    }
    return error;
}

static void page_to_rows(void *output, const struct page *page)
{
    add_to_rows(output, page);
}

static void page_to_json(void *output, const struct page *page)
{
    print_page_json(output, page);
}

static int print_bat(const struct image *image, uint64_t mapped)
{
    struct row row = {0};

    printf("%s: %llu entries in %u pages, %llu mapped\n", image->path,
           (unsigned long long)image->info.bat_entries, ploop_bat_page_count(image->dev),
           (unsigned long long)mapped);
    printf("%17s %8s %8s  each sign %d entries: . none mapped, : fewer than half, + half or more, "
           "# all\n",
           "page", "entries", "mapped", ENTRIES_PER_CHARACTER);
    int error = for_each_page(image->dev, page_to_rows, &row);
    print_row(&row);
    return error;
}

static int print_bat_json(const struct image *image, uint64_t mapped)
{
    struct json json = {0};

    json_begin_object(&json, NULL);
    json_string(&json, "image", image->path);
    json_number(&json, "bat_entries", image->info.bat_entries);
    json_number(&json, "mapped", mapped);
    json_begin_array(&json, "pages");
    int error = for_each_page(image->dev, page_to_json, &json);
    json_end_array(&json);
    json_end_object(&json);
    return error;
}

static int run(int argc, char **argv)
{
    struct image image = {0};
    struct ploop_dev_info dev_info = {.size = sizeof(dev_info)};
    bool json;

    if (parse_json_and_image(&bat_command, argc, argv, &json, &image) || image_open(&image)) {
        return EXIT_FAILURE;
    }
    int status = EXIT_FAILURE;
    if (!image_open_device(&image, NULL)) {
        ploop_dev_info(image.dev, &dev_info);
        int error = (json ? print_bat_json : print_bat)(&image, dev_info.clusters_mapped);
        status =
            error ? complain(image.path, "cannot read the BAT: %s", reason(error)) : EXIT_SUCCESS;
    }
    image_close(&image);
    return status;
}

const struct command bat_command = {
    .name = "bat",
    .synopsis = "[--json] [-U] " BASE_SYNOPSIS " IMAGE",
    .summary = "Show the pages of the BAT and how many entries of each are mapped",
    .options = "      --json             print JSON\n" FORCE_SHARE_HELP BASE_OPTIONS,
    .examples = "  ploopctl bat disk.hds\n",
    .run = run,
};

/* SPDX-License-Identifier: MIT */
/* See bounded_request.h. */
#include "bounded_request.h"

#include <stdio.h>
#include <string.h>

#include "report.h"

static const uint8_t permutations[PERMUTATIONS][BOUNDED_CLUSTERS] = {
    {0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};

static void add(struct alphabet *alphabet, char kind, enum extent extent, uint32_t cluster)
{
    struct bounded_request *request = &alphabet->requests[alphabet->count++];
    request->kind = kind;
    request->extent = extent;
    request->cluster = (uint8_t)cluster;
    if (kind == 's')
        snprintf(request->text, sizeof(request->text), "s");
    else if (extent == EXTENT_ACROSS)
        snprintf(request->text, sizeof(request->text), "%c%u%u", kind, cluster & 7,
                 (cluster + 1) & 7);
    else
        snprintf(request->text, sizeof(request->text), "%c%u%s", kind, cluster & 7,
                 extent == EXTENT_PART ? "a" : "");
}

static int find(const struct alphabet *alphabet, char kind, enum extent extent, uint32_t cluster)
{
    for (uint32_t i = 0; i < alphabet->count; i++) {
        const struct bounded_request *request = &alphabet->requests[i];
        if (request->kind == kind && request->extent == extent && request->cluster == cluster)
            return (int)i;
    }
    return -1;
}

static int rename_one(const struct alphabet *alphabet, const struct bounded_request *request,
                      const uint8_t *to)
{
    if (request->extent == EXTENT_NONE)
        return find(alphabet, request->kind, EXTENT_NONE, request->cluster);
    if (request->extent == EXTENT_ACROSS && to[request->cluster + 1] != to[request->cluster] + 1)
        return -1;
    return find(alphabet, request->kind, request->extent, to[request->cluster]);
}

void alphabet_init(struct alphabet *alphabet, uint32_t pages,
                   const uint32_t alike[BOUNDED_CLUSTERS])
{
    memset(alphabet, 0, sizeof(*alphabet));
    for (const char *kind = "wfz"; *kind; kind++)
        for (uint32_t cluster = 0; cluster < BOUNDED_CLUSTERS; cluster++)
            add(alphabet, *kind, EXTENT_PART, cluster);
    for (const char *kind = "wfzxd"; *kind; kind++)
        for (uint32_t cluster = 0; cluster < BOUNDED_CLUSTERS; cluster++)
            add(alphabet, *kind, EXTENT_WHOLE, cluster);
    for (const char *kind = "wfzd"; *kind; kind++)
        for (uint32_t cluster = 0; cluster + 1 < BOUNDED_CLUSTERS; cluster++)
            add(alphabet, *kind, EXTENT_ACROSS, cluster);
    add(alphabet, 's', EXTENT_NONE, 0);
    for (uint32_t page = 0; page < pages; page++)
        add(alphabet, 'p', EXTENT_NONE, page);
    for (uint32_t p = 0; p < PERMUTATIONS; p++) {
        bool keeps = true;
        for (uint32_t cluster = 0; cluster < BOUNDED_CLUSTERS; cluster++)
            keeps &= alike[cluster] == alike[permutations[p][cluster]];
        for (uint32_t i = 0; i < alphabet->count; i++)
            alphabet->renamed[p][i] =
                (int8_t)(keeps ? rename_one(alphabet, &alphabet->requests[i], permutations[p])
                               : -1);
    }
}

/* Whether the permutation may rename the sequence, to one that comes before it. */
static bool comes_before(const int8_t *renamed, const uint8_t *sequence, uint32_t length)
{
    int order = 0;
    for (uint32_t i = 0; i < length; i++) {
        if (renamed[sequence[i]] < 0)
            return false;
        if (!order)
            order = renamed[sequence[i]] - sequence[i];
    }
    return order < 0;
}

bool alphabet_stands_for_its_like(const struct alphabet *alphabet, const uint8_t *sequence,
                                  uint32_t length)
{
    for (uint32_t p = 0; p < PERMUTATIONS; p++)
        if (comes_before(alphabet->renamed[p], sequence, length))
            return false;
    return true;
}

int alphabet_find(const struct alphabet *alphabet, const char *text, const char **end)
{
    int found = -1;
    size_t longest = 0;
    for (uint32_t i = 0; i < alphabet->count; i++) {
        size_t length = strlen(alphabet->requests[i].text);
        if (length > longest && !strncmp(text, alphabet->requests[i].text, length)) {
            longest = length;
            found = (int)i;
        }
    }
    *end = text + longest;
    return found;
}

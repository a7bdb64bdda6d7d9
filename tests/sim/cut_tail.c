/* SPDX-License-Identifier: MIT */
/* See cut_tail.h. */
#include "cut_tail.h"

#include <errno.h>
#include <string.h>

#include "alloc.h"
#include "report.h"

static uint64_t whole_size(const struct image *image)
{
    return (image->data_off + (uint64_t)image->host_clusters * image->cluster_sectors) *
           DISK_SECTOR;
}

void cut_tail_image(struct image *image, bool odd_v1, bool other)
{
    image_fixed(image, odd_v1, 5, 0);
    /* Whole sectors: the model knows no sector that is half there. */
    uint64_t sectors = other ? image->cluster_sectors - 1 : (image->cluster_sectors + 1) / 2;
    image->cut_bytes = sectors * DISK_SECTOR;
}

bool cut_tail_is_there(const struct image *image, uint64_t size)
{
    return image->cut_bytes && size == whole_size(image) - image->cut_bytes;
}

struct oracle_memory cut_tail_whole(const struct image *image, const struct disk_state *state,
                                    uint8_t **own)
{
    *own = NULL;
    if (!cut_tail_is_there(image, state->size))
        return (struct oracle_memory){state->bytes, state->size};
    *own = sim_alloc(whole_size(image));
    memcpy(*own, state->bytes, state->size);
    memset(*own + state->size, 0, image->cut_bytes);
    return (struct oracle_memory){*own, whole_size(image)};
}

int cut_tail_open(struct sim *sim)
{
    uint64_t seq = sim->disk.next_seq;

    sim->backend.whole_size = whole_size(&sim->image);
    session_adopt(sim);
    int result = session_open(sim, SESSION_PLAIN);
    if (!result || sim->disk.next_seq != seq)
        violation("R19", "a cluster is cut off, and the image opens (%d), or is changed by it",
                  result);
    if (result != -EUCLEAN && !sim->expect_errors)
        violation("R19", "a cluster is cut off, and opening without RECOVER gives %d", result);
    result = session_open(sim, SESSION_RECOVER);
    if (!result && cut_tail_is_there(&sim->image, sim->disk.durable.size))
        violation("R19", "RECOVER succeeded, and the cluster is not durably whole");
    return result;
}

/* Every hot cluster: the one that was cut off is among them. */
void cut_tail_play(struct sim *sim)
{
    const struct image *image = &sim->image;
    uint64_t sectors = image->cluster_sectors;

    for (uint32_t i = 0; i < image->hot_count; i += 2) {
        uint64_t first = image->hot[i] * sectors;
        if (first + sectors > image->disk_sectors)
            continue;
        guest_do(sim, GUEST_READ, first, sectors, 0);
        guest_do(sim, GUEST_WRITE, first + i % sectors, 1, i % 3 ? 0 : PLOOP_PIO_FUA);
        session_drain(sim);
    }
    guest_do(sim, GUEST_FLUSH, 0, 0, 0);
    session_drain(sim);
    session_crash(sim);
    judge_cuts(sim);
    session_reopen(sim);
    guest_do(sim, GUEST_DISCARD, image->hot[0] * sectors, sectors, 0);
    guest_do(sim, GUEST_READ, image->hot[1] * sectors, sectors, 0);
    session_drain(sim);
}

/* SPDX-License-Identifier: MIT */
/* See input.h. */
#include "input.h"

#include <stdlib.h>
#include <string.h>

#include "format/extension.h"
#include "format/header.h"
#include "util/bytes.h"

enum { AT_TRACKS = 28, AT_EXT_OFF = 56, FILL_UNIT = SECTOR_SIZE };

static uint16_t load_le16(const uint8_t *bytes)
{
    return (uint16_t)(bytes[0] | bytes[1] << 8);
}

bool input_add(struct input *input, struct record record)
{
    size_t length = record.kind == RECORD_BYTES ? record.length : 0;

    if (input->record_count == INPUT_RECORDS_MAX ||
        length > sizeof(input->room) - input->room_used) {
        return false;
    }
    if (length) {
        memcpy(input->room + input->room_used, record.bytes, length);
    }
    record.bytes = input->room + input->room_used;
    input->room_used += length;
    input->records[input->record_count++] = record;
    return true;
}

void input_remove(struct input *input, uint32_t index)
{
    input->record_count--;
    memmove(&input->records[index], &input->records[index + 1],
            (input->record_count - index) * sizeof(input->records[0]));
}

void input_decode(struct input *input, const uint8_t *data, size_t size)
{
    uint8_t head[INPUT_HEAD_SIZE] = {0};
    size_t at = INPUT_HEAD_SIZE;

    memcpy(head, data, size < sizeof(head) ? size : sizeof(head));
    input->file_size = load_le64(head) & INT64_MAX;
    input->options = load_le32(head + 8) & OPTIONS;
    input->break_at = load_le32(head + 12);
    input->record_count = 0;
    input->room_used = 0;
    while (size > at && size - at >= RECORD_HEAD_SIZE) {
        struct record record = {
            .kind = data[at] % RECORD_KINDS,
            .value = data[at + 1],
            .length = load_le16(data + at + 2),
            .offset = load_le64(data + at + 4),
            .bytes = (uint8_t *)(uintptr_t)data + at + RECORD_HEAD_SIZE,
        };

        at += RECORD_HEAD_SIZE;
        if (record.kind == RECORD_BYTES) {
            record.length = (uint16_t)(record.length < size - at ? record.length : size - at);
            at += record.length;
        }
        if (!input_add(input, record)) {
            return;
        }
    }
}

size_t input_encode(const struct input *input, uint8_t *data, size_t room)
{
    size_t at = INPUT_HEAD_SIZE;

    if (room < INPUT_HEAD_SIZE) {
        return 0;
    }
    store_le64(data, input->file_size);
    store_le32(data + 8, input->options);
    store_le32(data + 12, input->break_at);
    for (uint32_t i = 0; i < input->record_count; i++) {
        const struct record *record = &input->records[i];
        size_t length = record->kind == RECORD_BYTES ? record->length : 0;

        if (room - at < RECORD_HEAD_SIZE + length) {
            break;
        }
        data[at] = (uint8_t)record->kind;
        data[at + 1] = record->value;
        data[at + 2] = (uint8_t)record->length;
        data[at + 3] = (uint8_t)(record->length >> 8);
        store_le64(data + at + 4, record->offset);
        memcpy(data + at + RECORD_HEAD_SIZE, record->bytes, length);
        at += RECORD_HEAD_SIZE + length;
    }
    return at;
}

/* The number of bytes of the file that a record covers. */
static uint64_t span(const struct record *record)
{
    return record->kind == RECORD_BYTES  ? record->length
           : record->kind == RECORD_FILL ? (uint64_t)record->length * FILL_UNIT
                                         : 0;
}

void input_peek(const struct input *input, uint64_t offset, void *bytes, uint16_t length)
{
    memset(bytes, 0, length);
    for (uint32_t i = 0; i < input->record_count; i++) {
        const struct record *record = &input->records[i];

        for (uint64_t n = 0; n < length; n++) {
            uint64_t inside = offset + n - record->offset; /* huge if it lies before the record */

            if (inside < span(record)) {
                ((uint8_t *)bytes)[n] =
                    record->kind == RECORD_BYTES ? record->bytes[inside] : record->value;
            }
        }
    }
}

bool input_poke(struct input *input, uint64_t offset, const void *bytes, uint16_t length)
{
    for (uint32_t i = input->record_count; i-- > 0;) {
        const struct record *record = &input->records[i];
        uint64_t inside = offset - record->offset;

        if (record->kind == RECORD_BYTES && inside < record->length &&
            length <= record->length - inside) {
            memcpy(record->bytes + inside, bytes, length);
            return true;
        }
        if (record->offset < offset + length && offset < record->offset + span(record)) {
            break; /* it would be hidden by this one */
        }
    }
    return input_add(input,
                     (struct record){RECORD_BYTES, 0, length, offset, (uint8_t *)(uintptr_t)bytes});
}

static void seal(struct sparse *file)
{
    uint8_t header[HEADER_SIZE];

    if (sparse_read(file, header, sizeof(header), 0) < sizeof(header)) {
        return;
    }

    uint64_t size = (uint64_t)load_le32(header + AT_TRACKS) * SECTOR_SIZE,
             sector = load_le64(header + AT_EXT_OFF);

    if (size == 0 || size > SEALED_SIZE_MAX || sector >= file->size / SECTOR_SIZE ||
        file->size - sector * SECTOR_SIZE < size) {
        return;
    }

    uint8_t *cluster = malloc(size);

    sparse_read(file, cluster, size, sector * SECTOR_SIZE);
    extension_seal(cluster, size);
    sparse_write(file, cluster, size, sector * SECTOR_SIZE);
    free(cluster);
}

static void lay(const struct record *record, struct sparse *file)
{
    static uint8_t fill[UINT16_MAX * FILL_UNIT];
    uint64_t length = span(record);

    if (record->offset >= file->size) {
        return;
    }
    length = length < file->size - record->offset ? length : file->size - record->offset;
    if (record->kind == RECORD_BYTES) {
        sparse_write(file, record->bytes, length, record->offset);
    } else if (record->kind == RECORD_FILL) {
        memset(fill, record->value, length);
        sparse_write(file, fill, length, record->offset);
    }
}

void input_build(const struct input *input, struct sparse *file)
{
    sparse_init(file, input->file_size);
    for (uint32_t i = 0; i < input->record_count; i++) {
        lay(&input->records[i], file);
    }
    if (input->options & OPTION_SEAL) {
        seal(file);
    }
}

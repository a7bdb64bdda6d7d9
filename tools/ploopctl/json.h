/* SPDX-License-Identifier: MIT */
/*
 * JSON on standard output, one value at a time. The caller nests values and closes what it opens;
 * keys are NULL inside an array.
 */
#ifndef PLOOPCTL_JSON_H
#define PLOOPCTL_JSON_H

#include <stdbool.h>
#include <stdint.h>

struct json {
    int depth;
    bool has_members; /* in the open object or array: the next one needs a comma */
};

void json_begin_object(struct json *json, const char *key);
void json_end_object(struct json *json);
void json_begin_array(struct json *json, const char *key);
void json_end_array(struct json *json);
/*
 * A NULL text is null. Bytes that are not UTF-8 are written as the lone surrogates U+DC80 to
 * U+DCFF, as Python does.
 */
void json_string(struct json *json, const char *key, const char *text);
void json_number(struct json *json, const char *key, uint64_t number);
/* null for UINT64_MAX. */
void json_number_or_null(struct json *json, const char *key, uint64_t number);
void json_bool(struct json *json, const char *key, bool value);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * See json.h. Objects inside an array take one line each: maps are long, and this keeps them
 * readable.
 */
#include "json.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

static void escape(const char *text);

enum { INDENTED_DEPTH = 2 }; /* deeper members share their parent's line */

static void begin_value(struct json *json, const char *key)
{
    if (json->has_members) {
        putchar(',');
    }
    if (json->depth > INDENTED_DEPTH) {
        fputs(json->has_members ? " " : "", stdout);
    } else if (json->depth > 0) {
        printf("\n%*s", 2 * json->depth, "");
    }
    json->has_members = true;
    if (key) {
        escape(key);
        fputs(": ", stdout);
    }
}

static void begin(struct json *json, const char *key, char bracket)
{
    begin_value(json, key);
    putchar(bracket);
    json->depth++;
    json->has_members = false;
}

static void end(struct json *json, char bracket)
{
    json->depth--;
    if (json->has_members && json->depth < INDENTED_DEPTH) {
        printf("\n%*s", 2 * json->depth, "");
    }
    json->has_members = true;
    putchar(bracket);
    if (json->depth == 0) {
        putchar('\n');
    }
}

void json_begin_object(struct json *json, const char *key)
{
    begin(json, key, '{');
}

void json_end_object(struct json *json)
{
    end(json, '}');
}

void json_begin_array(struct json *json, const char *key)
{
    begin(json, key, '[');
}

void json_end_array(struct json *json)
{
    end(json, ']');
}

void json_string(struct json *json, const char *key, const char *text)
{
    begin_value(json, key);
    if (text) {
        escape(text);
    } else {
        fputs("null", stdout);
    }
}

void json_number(struct json *json, const char *key, uint64_t number)
{
    begin_value(json, key);
    printf("%llu", (unsigned long long)number);
}

void json_number_or_null(struct json *json, const char *key, uint64_t number)
{
    if (number == UINT64_MAX) {
        json_string(json, key, NULL);
    } else {
        json_number(json, key, number);
    }
}

void json_bool(struct json *json, const char *key, bool value)
{
    begin_value(json, key);
    fputs(value ? "true" : "false", stdout);
}

/*
 * The number of bytes of the UTF-8 character at text; 0 if it is none: overlong forms, surrogates
 * and values past U+10FFFF.
 */
static size_t utf8_length(const unsigned char *text)
{
    static const struct {
        unsigned char first_min, first_max, second_min, second_max;
        size_t length;
    } forms[] = {
        {0x00, 0x7f, 0x00, 0xff, 1}, {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
        {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
        {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
    };
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        if (text[0] < forms[i].first_min || text[0] > forms[i].first_max) {
            continue;
        }
        if (forms[i].length > 1 &&
            (text[1] < forms[i].second_min || text[1] > forms[i].second_max)) {
            return 0;
        }
        for (size_t at = 2; at < forms[i].length; at++) {
            if ((text[at] & 0xc0) != 0x80) {
                return 0;
            }
        }
        return forms[i].length;
    }
    return 0;
}

static void escape(const char *text)
{
    const unsigned char *at = (const unsigned char *)text;

    putchar('"');
    while (*at) {
        size_t length = utf8_length(at);
        if (length == 0) {
            printf("\\udc%02x", *at);
            length = 1;
        } else if (*at == '"' || *at == '\\') {
            printf("\\%c", *at);
        } else if (*at < 0x20 || *at == 0x7f) {
            printf("\\u%04x", *at);
        } else {
            fwrite(at, 1, length, stdout);
        }
        at += length;
    }
    putchar('"');
}

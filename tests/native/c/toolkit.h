/*
 * What the C plugins of the tests share: finding members in requests, base64, replies. Requests come from the host with
 * members in the documented order and no white space (plugin-abi 2.6), so looking for text is enough.
 */
#ifndef TOOLKIT_H
#define TOOLKIT_H

#define CPA_PLUGIN_IMPLEMENTATION
#include "cpa_plugin.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *at; /* NULL: not there */
    size_t len;
} text;

/* The text between `before` and the next double quote. */
static inline text find(const void *in, size_t len, const char *before) {
    const char *at = memmem(in, len, before, strlen(before));
    if (at == NULL)
        return (text){NULL, 0};
    at += strlen(before);
    const char *end = memchr(at, '"', len - (size_t)(at - (const char *)in));
    return (text){end != NULL ? at : NULL, end != NULL ? (size_t)(end - at) : 0};
}

static inline int is(text value, const char *word) {
    return value.at != NULL && value.len == strlen(word) && memcmp(value.at, word, value.len) == 0;
}

static const char DIGITS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* NUL-terminated, to be freed. */
static inline char *decode64(text in, size_t *len) {
    char *out = malloc(in.len / 4 * 3 + 4);
    unsigned bits = 0;
    size_t n = 0;
    int have = 0;
    for (size_t i = 0; i < in.len && in.at[i] != '='; i++) {
        bits = bits << 6 | (unsigned)(strchr(DIGITS, in.at[i]) - DIGITS);
        if ((have += 6) >= 8)
            out[n++] = (char)(bits >> (have -= 8));
    }
    out[n] = '\0';
    *len = n;
    return out;
}

static inline char *encode64(const char *in, size_t len) {
    char *out = malloc((len + 2) / 3 * 4 + 1), *at = out;
    for (size_t i = 0; i < len; i += 3) {
        unsigned bits = (unsigned)(unsigned char)in[i] << 16;
        bits |= i + 1 < len ? (unsigned)(unsigned char)in[i + 1] << 8 : 0;
        bits |= i + 2 < len ? (unsigned)(unsigned char)in[i + 2] : 0;
        *at++ = DIGITS[bits >> 18];
        *at++ = DIGITS[bits >> 12 & 63];
        *at++ = i + 1 < len ? DIGITS[bits >> 6 & 63] : '=';
        *at++ = i + 2 < len ? DIGITS[bits & 63] : '=';
    }
    *at = '\0';
    return out;
}

static inline int reply_bytes(cliproxy_buffer *out, const void *bytes, size_t len) {
    out->ptr = malloc(len > 0 ? len : 1);
    memcpy(out->ptr, bytes, len);
    out->len = len;
    return 0;
}

static inline int reply(cliproxy_buffer *out, const char *envelope) { return reply_bytes(out, envelope, strlen(envelope)); }

__attribute__((format(printf, 2, 3))) static inline int replyf(cliproxy_buffer *out, const char *format, ...) {
    va_list args;
    va_start(args, format);
    char *envelope;
    int len = vasprintf(&envelope, format, args);
    va_end(args);
    out->ptr = envelope;
    out->len = (size_t)len;
    return 0;
}

/* The value of a one-line setting `key: value` of the YAML text; to be freed. `otherwise` when it is not there. */
static inline char *setting(const char *yaml, const char *key, const char *otherwise) {
    char line[64];
    snprintf(line, sizeof line, "\n%s: ", key);
    const char *at = strncmp(yaml, line + 1, strlen(line + 1)) == 0 ? yaml - 1 : strstr(yaml, line);
    if (at == NULL)
        return strdup(otherwise);
    at += strlen(line);
    return strndup(at, strcspn(at, "\r\n"));
}

static inline char *settings_of(const uint8_t *req, size_t len) {
    size_t ignored;
    return decode64(find(req, len, "\"config_yaml\":\""), &ignored);
}

/* `{"capability":true,…}` for a list with blanks between; to be freed. */
static inline char *switches(char *list) {
    char *out = calloc(1, 2 * strlen(list) * 8 + 16), *save = NULL;
    strcpy(out, "{");
    for (char *word = strtok_r(list, " ", &save); word != NULL; word = strtok_r(NULL, " ", &save))
        sprintf(out + strlen(out), "%s\"%s\":true", strlen(out) > 1 ? "," : "", word);
    strcat(out, "}");
    return out;
}

static const char NOTHING[] = "{\"ok\":true,\"result\":{}}";
static const char UNKNOWN[] = "{\"ok\":false,\"error\":{\"code\":\"unknown_method\",\"message\":\"unknown method\"}}";

#endif

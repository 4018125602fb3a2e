/*
 * The least that a plugin can do: it gives every body back as it came, in base64 and all. What a call of it costs is
 * what the host costs. -DSCHEMA=1..3 is what it registers with, -DMARK="1" the end of the header that its stream
 * interceptor sets, so that the harness sees that it takes part. -DRECORD="file" appends the sizes of each body's call
 * and reply to a file.
 */
#define CPA_PLUGIN_IMPLEMENTATION
#include "cpa_plugin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef SCHEMA
#define SCHEMA 3
#endif
#ifndef MARK
#define MARK "0"
#endif
#define TEXT(value) TEXT_OF(value)
#define TEXT_OF(value) #value

static const char REGISTERED[] =
    "{\"ok\":true,\"result\":{\"schema_version\":" TEXT(SCHEMA) ",\"metadata\":{\"Name\":\"echo\",\"Version\":\"1\","
    "\"Author\":\"bench\",\"GitHubRepository\":\"none\"},\"capabilities\":{"
#ifdef INTERCEPTS
    "\"response_stream_interceptor\":true"
#else
    "\"request_normalizer\":true"
#endif
    "}}}";
static const char HEAD[] = "{\"ok\":true,\"result\":{\"Headers\":{\"X-Bench-" MARK "\":[\"yes\"]}}}";
static const char NOTHING[] = "{\"ok\":true,\"result\":{}}";
static const char START[] = "{\"ok\":true,\"result\":{\"Body\":\"", END[] = "\"}}";

static int constant(cliproxy_buffer *out, const char *reply) {
    out->ptr = (void *)reply;
    out->len = strlen(reply);
    return 0;
}

/*
 * Where the base64 of the body begins; NULL when there is none. Members come without white space (plugin-abi 2.6) and
 * base64 has no quotes, so hopping from quote to quote passes the large ones at the speed of memory.
 */
static const char *find_body(const char *at, const char *end) {
    static const char MEMBER[] = "\"Body\":\"";
    for (; (at = memchr(at, '"', (size_t)(end - at))) != NULL; at++)
        if ((size_t)(end - at) > sizeof MEMBER && memcmp(at, MEMBER, sizeof MEMBER - 1) == 0)
            return at + sizeof MEMBER - 1;
    return NULL;
}

static int echo(const uint8_t *req, size_t len, const char *without, cliproxy_buffer *out) {
    const char *end = (const char *)req + len, *body = find_body((const char *)req, end);
    if (body == NULL)
        return constant(out, without);
    size_t size = (size_t)((const char *)memchr(body, '"', (size_t)(end - body)) - body);
    char *at = malloc(sizeof START - 1 + size + sizeof END - 1);
    out->ptr = at;
    out->len = sizeof START - 1 + size + sizeof END - 1;
    at = mempcpy(at, START, sizeof START - 1);
    at = mempcpy(at, body, size);
    memcpy(at, END, sizeof END - 1);
#ifdef RECORD
    FILE *record = fopen(RECORD, "a");
    if (record != NULL) {
        fprintf(record, "%zu %zu\n", len, out->len);
        fclose(record);
    }
#endif
    return 0;
}

static int call(const char *method, const uint8_t *req, size_t len, cliproxy_buffer *out) {
    if (strcmp(method, "request.normalize") == 0)
        return echo(req, len, NOTHING, out);
    if (strcmp(method, "response.intercept_stream_chunk") == 0)
        return echo(req, len, HEAD, out); /* only the head call has no body */
    return constant(out, strncmp(method, "plugin.re", 9) == 0 ? REGISTERED : NOTHING);
}

static void release(void *ptr, size_t len) {
    (void)len;
    if (ptr != REGISTERED && ptr != HEAD && ptr != NOTHING)
        free(ptr);
}

int cliproxy_plugin_init(const cliproxy_host_api *host, cliproxy_plugin_api *plugin) {
    (void)host;
    *plugin = (cliproxy_plugin_api){1, call, release, NULL};
    return 0;
}

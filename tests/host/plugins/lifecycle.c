/*
 * A plugin that registers, works and misbehaves on request. Compile-time switches:
 *   -DVERSION="2"       what it calls itself
 *   -DHIGHEST=2         refuses to register with a higher schema version
 *   -DNO_AUTHOR         metadata that are not valid
 *   -DCRASH_IN_REGISTER, -DHANG_IN_REGISTER, -DHANG_IN_SHUTDOWN
 * Settings that begin with "bad" are refused.
 */
#define CPA_PLUGIN_IMPLEMENTATION
#include "cpa_plugin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef VERSION
#define VERSION "1"
#endif
#ifndef HIGHEST
#define HIGHEST 3
#endif

static const cliproxy_host_api *host;

static int say(cliproxy_buffer *out, const char *text) {
    out->len = strlen(text);
    out->ptr = malloc(out->len);
    memcpy(out->ptr, text, out->len);
    return 0;
}

static int has(const uint8_t *req, size_t len, const char *text) { return memmem(req, len, text, strlen(text)) != NULL; }

static int greet(const uint8_t *req, size_t len, cliproxy_buffer *out) {
    char newer[32];
#ifdef CRASH_IN_REGISTER
    abort();
#endif
#ifdef HANG_IN_REGISTER
    for (;;)
        pause();
#endif
    for (int version = HIGHEST + 1; version <= 3; version++) {
        snprintf(newer, sizeof newer, "\"schema_version\":%d", version);
        if (has(req, len, newer))
            return say(out, "{\"ok\":false,\"error\":{\"message\":\"schema version is too new\"}}"), 1;
    }
    if (has(req, len, "\"config_yaml\":\"YmFk"))
        return say(out, "{\"ok\":false,\"error\":{\"message\":\"bad settings\"}}");
#ifdef NO_AUTHOR
    return say(out, "{\"ok\":true,\"result\":{\"metadata\":{\"Name\":\"n\",\"Version\":\"1\",\"GitHubRepository\":\"r\"},"
                    "\"capabilities\":{\"request_normalizer\":true}}}");
#else
    return say(out, "{\"ok\":true,\"result\":{\"schema_version\":2,\"metadata\":{\"Name\":\"n\",\"Version\":\"" VERSION "\","
                    "\"Author\":\"a\",\"GitHubRepository\":\"r\"},\"capabilities\":{\"request_normalizer\":true,"
                    "\"thinking_applier\":true,\"usage_plugin\":true,\"request_lifecycle_plugin\":true}}}");
#endif
}

static int call(const char *method, const uint8_t *req, size_t len, cliproxy_buffer *out) {
    if (strcmp(method, "plugin.register") == 0 || strcmp(method, "plugin.reconfigure") == 0)
        return greet(req, len, out);
    if (strcmp(method, "thinking.identifier") == 0)
        return say(out, "{\"ok\":true,\"result\":{\"identifier\":\" acme \"}}");
    if (strcmp(method, "thinking.apply") == 0)
        for (;;)
            pause();
    if (strcmp(method, "usage.handle") == 0)
        abort();
    if (strcmp(method, "request.complete") == 0) /* waits for as long as the host does */
        host->call(host->host_ctx, "wait", NULL, 0, NULL);
    return say(out, "{\"ok\":true,\"result\":{}}");
}

static void release(void *ptr, size_t len) {
    (void)len;
    free(ptr);
}

static void stop(void) {
#ifdef HANG_IN_SHUTDOWN
    for (;;)
        pause();
#endif
    host->call(host->host_ctx, "stopped", (const uint8_t *)VERSION, strlen(VERSION), NULL);
}

int cliproxy_plugin_init(const cliproxy_host_api *api, cliproxy_plugin_api *plugin) {
    host = api;
    *plugin = (cliproxy_plugin_api){1, call, release, stop};
    return 0;
}

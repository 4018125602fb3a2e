/* A provider of its own, "acme": parses its credential files, names their models, refreshes and executes them.
 * What it makes of a file depends on the file's name, so that tests can order every kind of answer. */
#include "cpa_plugin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MEGABYTE (1u << 20)

static const char REGISTERED[] =
    "{\"ok\":true,\"result\":{\"schema_version\":3,"
    "\"metadata\":{\"Name\":\"accounts\",\"Version\":\"1\",\"Author\":\"tests\",\"GitHubRepository\":\"none\"},"
    "\"capabilities\":{\"auth_provider\":true,\"model_provider\":true,\"executor\":true,"
    "\"executor_input_formats\":[\"openai\"],\"executor_output_formats\":[\"openai\"]}}}";
static const char IDENTIFIER[] = "{\"ok\":true,\"result\":{\"identifier\":\"Acme\"}}";
static const char STATIC_MODELS[] =
    "{\"ok\":true,\"result\":{\"Provider\":\"acme\",\"Models\":[{\"ID\":\"acme-1\",\"DisplayName\":\"Acme One\","
    "\"OwnedBy\":\"Acme Ltd\",\"Created\":1767268800,\"ContextLength\":32768},{\"ID\":\"gpt\"},{\"ID\":\" \"}]}}";
/* {"token":"new-token"} */
static const char REFRESHED[] =
    "{\"ok\":true,\"result\":{\"Auth\":{\"StorageJSON\":\"eyJ0b2tlbiI6Im5ldy10b2tlbiJ9\"}}}";
static const char REFUSED[] =
    "{\"ok\":false,\"error\":{\"code\":\"x\",\"message\":\"token is too old\",\"http_status\":401}}";
/* {"id":"x","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},
 *  "finish_reason":"stop"}]} */
static const char ANSWERED[] =
    "{\"ok\":true,\"result\":{\"Payload\":\"eyJpZCI6IngiLCJvYmplY3QiOiJjaGF0LmNvbXBsZXRpb24iLCJjaG9pY2VzIjpbeyJpbmRleCI6M"
    "CwibWVzc2FnZSI6eyJyb2xlIjoiYXNzaXN0YW50IiwiY29udGVudCI6ImhpIn0sImZpbmlzaF9yZWFzb24iOiJzdG9wIn1dfQ==\"}}";
/* {"refresh_interval":3600,"token":"old-token","type":"acme"} */
static const char OLD_STORAGE[] =
    "eyJyZWZyZXNoX2ludGVydmFsIjozNjAwLCJ0b2tlbiI6Im9sZC10b2tlbiIsInR5cGUiOiJhY21lIn0=";

/* The text of a string member of the request; nothing in it is ever escaped. */
static const char *member(const uint8_t *request, size_t length, const char *name, int *size) {
    const char *end = (const char *)request + length;
    const char *at = memmem(request, length, name, strlen(name));
    *size = 0;
    if (at == NULL) {
        return "";
    }
    at += strlen(name);
    while (at + *size < end && at[*size] != '"') {
        ++*size;
    }
    return at;
}

static void say(cliproxy_buffer *out, const char *text) {
    out->ptr = strdup(text);
    out->len = strlen(text);
}

static void parse(const uint8_t *request, size_t length, cliproxy_buffer *out) {
    int name_size, raw_size;
    const char *name = member(request, length, "\"FileName\":\"", &name_size);
    const char *raw = member(request, length, "\"RawJSON\":\"", &raw_size);
    char kind = name_size > 0 ? name[0] : 0;
    if (kind == 'h') { /* huge */
        char *text = malloc(MEGABYTE + 256);
        size_t size = (size_t)sprintf(text, "{\"ok\":true,\"result\":{\"Handled\":true,\"Auth\":{\"ID\":\"");
        memset(text + size, 'x', MEGABYTE);
        size += MEGABYTE;
        size += (size_t)sprintf(text + size, "\"}}}");
        out->ptr = text;
        out->len = size;
    } else if (kind == 'm') { /* many */
        say(out, "{\"ok\":true,\"result\":{\"Handled\":true,\"Auths\":["
                 "{\"ID\":\"one\",\"Label\":\"One\"},{\"ID\":\"two\",\"Disabled\":true},{\"Metadata\":{\"n\":3}}]}}");
    } else if (kind == 'p') { /* path */
        say(out, "{\"ok\":true,\"result\":{\"Handled\":true,\"Auth\":{\"FileName\":\"../../etc/evil.json\","
                 "\"Attributes\":{\"path\":\"/etc/passwd\"}}}}");
    } else if (kind == 'w') { /* wrong types */
        say(out, "{\"ok\":true,\"result\":{\"Handled\":\"yes\",\"Auth\":7}}");
    } else if (kind == 'x') { /* crashes */
        _exit(3);
    } else if (kind == 'd') { /* declines */
        say(out, "{\"ok\":true,\"result\":{\"Handled\":false}}");
    } else {
        char *text = malloc((size_t)raw_size + 256);
        out->len = (size_t)sprintf(text,
                                   "{\"ok\":true,\"result\":{\"Handled\":true,\"Auth\":{\"Label\":\"parsed\","
                                   "\"StorageJSON\":\"%.*s\",\"Metadata\":{\"refresh_interval\":3600}}}}",
                                   raw_size, raw);
        out->ptr = text;
    }
}

static int call(const char *method, const uint8_t *request, size_t length, cliproxy_buffer *out) {
    if (strcmp(method, "plugin.register") == 0 || strcmp(method, "plugin.reconfigure") == 0) {
        say(out, REGISTERED);
    } else if (strcmp(method, "auth.identifier") == 0 || strcmp(method, "executor.identifier") == 0) {
        say(out, IDENTIFIER);
    } else if (strcmp(method, "model.static") == 0) {
        say(out, STATIC_MODELS);
    } else if (strcmp(method, "auth.parse") == 0) {
        parse(request, length, out);
    } else if (strcmp(method, "model.for_auth") == 0) {
        char text[512];
        int size;
        const char *id = member(request, length, "\"AuthID\":\"", &size);
        snprintf(text, sizeof text, "{\"ok\":true,\"result\":{\"Models\":[{\"ID\":\"pro-of-%.*s\"}]}}", size, id);
        say(out, text);
    } else if (strcmp(method, "auth.refresh") == 0) {
        say(out, REFRESHED);
    } else if (strcmp(method, "executor.execute") == 0) {
        int old = memmem(request, length, OLD_STORAGE, strlen(OLD_STORAGE)) != NULL;
        say(out, old ? REFUSED : ANSWERED);
    } else {
        say(out, "{\"ok\":true,\"result\":{}}");
    }
    return 0;
}

static void free_buffer(void *ptr, size_t len) {
    (void)len;
    free(ptr);
}

int cliproxy_plugin_init(const cliproxy_host_api *host, cliproxy_plugin_api *plugin) {
    (void)host;
    plugin->abi_version = 1;
    plugin->call = call;
    plugin->free_buffer = free_buffer;
    plugin->shutdown = NULL;
    return 0;
}

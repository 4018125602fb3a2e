/*
 * A plugin with pages, management routes and sign-in. What it serves is in "served.h", which a test writes:
 *   REGISTERED, SERVED   envelopes of plugin.register and management.register
 *   PAGES                {"/full/path", "envelope"}, … answers of management.handle
 * Envelopes that begin with '@' are orders: @echo (the request itself as the body), @model (what host.model.execute
 * answers, as the body), @abort.
 * Sign-in at "acme": the state is "s-" and a number; polling succeeds when the callback's file is there, with the
 * file's content as the credential, and fails when that has an error.
 */
#define CPA_PLUGIN_IMPLEMENTATION
#include "cpa_plugin.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "served.h"

static const cliproxy_host_api *host;
static const char *const PAGE_TABLE[][2] = {PAGES{NULL, NULL}};
static const char LETTERS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static int say(cliproxy_buffer *out, const char *text) {
    out->len = strlen(text);
    out->ptr = malloc(out->len);
    memcpy(out->ptr, text, out->len);
    return 0;
}

static char *base64(const uint8_t *data, size_t len) {
    char *text = malloc(len / 3 * 4 + 5), *at = text;
    for (size_t i = 0; i < len; i += 3) {
        uint32_t word = (uint32_t)data[i] << 16;
        if (i + 1 < len)
            word |= (uint32_t)data[i + 1] << 8;
        if (i + 2 < len)
            word |= data[i + 2];
        *at++ = LETTERS[word >> 18 & 63];
        *at++ = LETTERS[word >> 12 & 63];
        *at++ = i + 1 < len ? LETTERS[word >> 6 & 63] : '=';
        *at++ = i + 2 < len ? LETTERS[word & 63] : '=';
    }
    *at = 0;
    return text;
}

static int say_body(cliproxy_buffer *out, const uint8_t *data, size_t len) {
    char *body = base64(data, len), *text = NULL;
    if (asprintf(&text, "{\"ok\":true,\"result\":{\"StatusCode\":0,\"Headers\":"
                        "{\"Content-Type\":[\"application/octet-stream\"]},\"Body\":\"%s\"}}",
                 body) < 0)
        abort();
    int rc = say(out, text);
    free(text);
    free(body);
    return rc;
}

/* The string member of that name, without looking inside of strings: what the tests send has no such traps. */
static char *member(const char *request, const char *name) {
    char *mark = NULL;
    if (asprintf(&mark, "\"%s\":\"", name) < 0)
        abort();
    const char *start = strstr(request, mark);
    size_t skip = strlen(mark);
    free(mark);
    if (start == NULL)
        return strdup("");
    start += skip;
    return strndup(start, strcspn(start, "\""));
}

static int ask_model(const char *request, cliproxy_buffer *out) {
    char *scope = member(request, "host_callback_id"), *ask = NULL;
    static const char BODY[] = "{\"model\":\"gpt\",\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]}";
    char *body = base64((const uint8_t *)BODY, strlen(BODY));
    if (asprintf(&ask, "{\"host_callback_id\":\"%s\",\"entry_protocol\":\"openai\",\"model\":\"gpt\",\"body\":\"%s\"}",
                 scope, body) < 0)
        abort();
    cliproxy_buffer answer = {0};
    int rc = host->call(host->host_ctx, "host.model.execute", (const uint8_t *)ask, strlen(ask), &answer);
    free(ask);
    free(body);
    free(scope);
    if (rc != 0)
        return say(out, "{\"ok\":false,\"error\":{\"message\":\"no host\"}}");
    say_body(out, answer.ptr, answer.len);
    host->free_buffer(answer.ptr, answer.len);
    return 0;
}

static int handle(const char *request, cliproxy_buffer *out) {
    char *path = member(request, "Path");
    const char *reply = "{\"ok\":false,\"error\":{\"message\":\"no such page\"}}";
    for (size_t i = 0; PAGE_TABLE[i][0] != NULL; i++)
        if (strcmp(PAGE_TABLE[i][0], path) == 0)
            reply = PAGE_TABLE[i][1];
    free(path);
    if (strcmp(reply, "@echo") == 0)
        return say_body(out, (const uint8_t *)request, strlen(request));
    if (strcmp(reply, "@model") == 0)
        return ask_model(request, out);
    if (strcmp(reply, "@abort") == 0)
        abort();
    return say(out, reply);
}

static int login_start(cliproxy_buffer *out) {
    static atomic_int count;
    char text[256];
    snprintf(text, sizeof text,
             "{\"ok\":true,\"result\":{\"URL\":\"https://login.example.org/?x=1\",\"State\":\"s-%d\",\"Metadata\":{\"n\":1}}}",
             ++count);
    return say(out, text);
}

static int login_poll(const char *request, cliproxy_buffer *out) {
    char *folder = member(request, "AuthDir"), *state = member(request, "State"), *path = NULL;
    if (asprintf(&path, "%s/.oauth-acme-%s.oauth", folder, state) < 0)
        abort();
    FILE *file = fopen(path, "r");
    free(path);
    free(state);
    free(folder);
    if (file == NULL)
        return say(out, "{\"ok\":true,\"result\":{\"Status\":\"pending\"}}");
    char content[4096];
    size_t len = fread(content, 1, sizeof content - 1, file);
    fclose(file);
    content[len] = 0;
    if (strstr(content, "\"error\":\"\"") == NULL)
        return say(out, "{\"ok\":true,\"result\":{\"Status\":\"error\",\"Message\":\"access denied\"}}");
    char *storage = base64((const uint8_t *)content, len), *text = NULL;
    if (asprintf(&text, "{\"ok\":true,\"result\":{\"Status\":\"success\",\"Auth\":{\"Provider\":\"acme\","
                        "\"FileName\":\"acme-me.json\",\"StorageJSON\":\"%s\"}}}",
                 storage) < 0)
        abort();
    int rc = say(out, text);
    free(text);
    free(storage);
    return rc;
}

static int call(const char *method, const uint8_t *data, size_t len, cliproxy_buffer *out) {
    char *request = strndup((const char *)data, len);
    int rc;
    if (strcmp(method, "plugin.register") == 0 || strcmp(method, "plugin.reconfigure") == 0)
        rc = say(out, REGISTERED);
    else if (strcmp(method, "management.register") == 0)
        rc = say(out, SERVED);
    else if (strcmp(method, "management.handle") == 0)
        rc = handle(request, out);
    else if (strcmp(method, "auth.identifier") == 0)
        rc = say(out, "{\"ok\":true,\"result\":{\"identifier\":\"acme\"}}");
    else if (strcmp(method, "auth.login.start") == 0)
        rc = login_start(out);
    else if (strcmp(method, "auth.login.poll") == 0)
        rc = login_poll(request, out);
    else
        rc = say(out, "{\"ok\":true,\"result\":{}}");
    free(request);
    return rc;
}

static void free_buffer(void *ptr, size_t len) {
    (void)len;
    free(ptr);
}

int cliproxy_plugin_init(const cliproxy_host_api *host_api, cliproxy_plugin_api *plugin) {
    host = host_api;
    plugin->abi_version = 1;
    plugin->call = call;
    plugin->free_buffer = free_buffer;
    plugin->shutdown = NULL;
    return 0;
}

/*
 * A plugin that declares all 20 capabilities and does everything right, and with one compile-time switch one thing
 * wrong:
 *   -DSEGV_ON_BROKEN       request.normalize reads through a null pointer when the request is no JSON object
 *   -DHANG_IN=\"method\"     that method never returns
 *   -DABORT_IN=\"method\"    that method aborts
 *   -DWRONG_TYPE           request.normalize answers with a number for its body
 *   -DDOUBLE_FREE          replies to request.normalize are freed twice
 *   -DEXIT_IN_SHUTDOWN=3   shutdown() exits with that status
 *   -DHANG_IN_SHUTDOWN     shutdown() never returns
 *   -DFORGETFUL            the second registration declares less
 *   -DFICKLE               executor.identifier changes with every call
 *   -DSILENT               unknown methods are answered with nothing
 *   -DNO_CLOSE             the asynchronous stream is never closed
 *   -DSERIAL               one lock around every call: deadlocks when called from its own host call
 *   -DRACE                 crashes when four calls are inside at once
 *   -DLEAVE_CHILD          usage.handle starts a process that outlives the plugin
 *   -DBAD_HOST_CALL        host calls are no JSON
 *   -DNO_AUTHOR            does not register
 *   -DFEW                  declares four capabilities instead of 20
 *   -DFLAGS=\"json\"         other flags for command_line.register
 *   -DEXECUTE=\"json\"       another answer of command_line.execute
 */
#define CPA_PLUGIN_IMPLEMENTATION
#include "cpa_plugin.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef NAME
#define NAME "kit"
#endif
#ifndef HANG_IN
#define HANG_IN ""
#endif
#ifndef ABORT_IN
#define ABORT_IN ""
#endif
#ifndef FLAGS
#define FLAGS                                                                                                          \
    "{\"Name\":\"" NAME "-login\",\"Usage\":\"Sign in to the kit\",\"Type\":\"bool\"},"                                    \
    "{\"Name\":\"" NAME "-wait\",\"Usage\":\"How long\",\"Type\":\"duration\",\"DefaultValue\":\"90s\"}"
#endif
#ifndef EXECUTE
#define EXECUTE "{\"Stdout\":\"ZG9uZQo=\",\"ExitCode\":0}"
#endif

#define OK(result) "{\"ok\":true,\"result\":" result "}"
#define METADATA_HEAD "\"schema_version\":3,\"metadata\":{\"Name\":\"" NAME "\",\"Version\":\"1.0.0\","
#ifdef NO_AUTHOR
#define METADATA METADATA_HEAD "\"GitHubRepository\":\"none\"},"
#else
#define METADATA METADATA_HEAD "\"Author\":\"tests\",\"GitHubRepository\":\"none\"},"
#endif

static const cliproxy_host_api *host;
static atomic_int inside, registrations, counter;
static pthread_mutex_t serial = PTHREAD_MUTEX_INITIALIZER;

#ifdef FEW
#define MANY ""
#else
#define MANY                                                                                                           \
    "\"model_registrar\":true,\"model_provider\":true,\"auth_provider\":true,\"frontend_auth_provider\":true,"           \
    "\"scheduler\":true,\"model_router\":true,\"request_translator\":true,\"request_interceptor\":true,"                 \
    "\"request_lifecycle_plugin\":true,\"response_translator\":true,\"response_before_translator\":true,"                \
    "\"response_after_translator\":true,\"response_interceptor\":true,\"response_stream_interceptor\":true,"             \
    "\"thinking_applier\":true,\"command_line_plugin\":true,"
#endif
static const char ALL[] = OK("{" METADATA "\"capabilities\":{" MANY "\"executor\":true,\"request_normalizer\":true,"
    "\"usage_plugin\":true,\"management_api\":true,\"executor_model_scope\":\"both\","
    "\"executor_input_formats\":[\"openai\"],\"executor_output_formats\":[\"openai\"]}}");
static const char LESS[] = OK("{" METADATA "\"capabilities\":{\"request_normalizer\":true}}");

static const char *const ANSWERS[][2] = {
    {"auth.identifier", OK("{\"identifier\":\"kit\"}")},
    {"frontend_auth.identifier", OK("{\"identifier\":\"kit\"}")},
    {"executor.identifier", OK("{\"identifier\":\"kit\"}")},
    {"thinking.identifier", OK("{\"identifier\":\"kit\"}")},
    {"model.register", OK("{\"Provider\":\"kit\",\"Models\":[{\"ID\":\"kit-1\"}]}")},
    {"model.static", OK("{\"Provider\":\"kit\",\"Models\":[{\"ID\":\"kit-1\"}]}")},
    {"model.for_auth", OK("{\"Provider\":\"kit\",\"Models\":[{\"ID\":\"kit-2\"}]}")},
    {"auth.parse", OK("{\"Handled\":false}")},
    {"auth.login.start", OK("{\"Provider\":\"kit\",\"URL\":\"https://example.invalid/\",\"State\":\"s\"}")},
    {"auth.login.poll", OK("{\"Status\":\"pending\"}")},
    {"auth.refresh", OK("{\"Auth\":{\"Label\":\"kit\"}}")},
    {"frontend_auth.authenticate", OK("{\"Authenticated\":false}")},
    {"scheduler.pick", OK("{\"Handled\":false}")},
    {"model.route", OK("{\"Handled\":false}")},
    {"executor.execute", OK("{\"Payload\":\"e30=\"}")},
    {"executor.count_tokens", OK("{\"Payload\":\"eyJ0b3RhbF90b2tlbnMiOjd9\"}")},
    {"executor.http_request", OK("{\"StatusCode\":200}")},
    {"request.translate", OK("{}")},
    {"request.intercept_before", OK("{\"Headers\":{\"X-Kit\":[\"1\"]}}")},
    {"request.intercept_after", OK("{}")},
    {"request.complete", OK("{}")},
    {"response.normalize_before", OK("{}")},
    {"response.translate", OK("{}")},
    {"response.normalize_after", OK("{}")},
    {"response.intercept_after", OK("{}")},
    {"response.intercept_stream_chunk", OK("{\"DropChunk\":false}")},
    {"thinking.apply", OK("{\"Body\":\"e30=\"}")},
    {"usage.handle", OK("{}")},
    {"command_line.register", OK("{\"Flags\":[" FLAGS "]}")},
    {"command_line.execute", OK(EXECUTE)},
    {"management.register", OK("{\"resources\":[{\"Path\":\"/status\"}]}")},
};

static int say(cliproxy_buffer *out, const char *text, int rc) {
    out->len = strlen(text);
    out->ptr = malloc(out->len + 1);
    memcpy(out->ptr, text, out->len + 1);
    return rc;
}

static void ask(const char *method, const char *request) {
    cliproxy_buffer answer = {NULL, 0};
#ifdef BAD_HOST_CALL
    request = "no JSON";
#endif
    host->call(host->host_ctx, method, (const uint8_t *)request, strlen(request), &answer);
    host->free_buffer(answer.ptr, answer.len);
}

static void *stream(void *id) {
    char text[256];
    for (int i = 0; i < 3; i++) {
        snprintf(text, sizeof text, "{\"stream_id\":\"%s\",\"payload\":\"e30=\"}", (char *)id);
        ask("host.stream.emit", text);
    }
#ifndef NO_CLOSE
    snprintf(text, sizeof text, "{\"stream_id\":\"%s\"}", (char *)id);
    ask("host.stream.close", text);
#endif
    free(id);
    return NULL;
}

static int start_stream(const uint8_t *req, size_t len, cliproxy_buffer *out) {
    static const char KEY[] = "\"stream_id\":\"";
    const char *found = memmem(req, len, KEY, sizeof KEY - 1);
    if (found == NULL)
        return say(out, "{\"ok\":false,\"error\":{\"message\":\"stream_id is required\",\"http_status\":400}}", 1);
    found += sizeof KEY - 1;
    const char *end = memchr(found, '"', len - (size_t)(found - (const char *)req));
    pthread_t thread;
    pthread_create(&thread, NULL, stream, strndup(found, end != NULL ? (size_t)(end - found) : 0));
    pthread_detach(thread);
    return say(out, OK("{\"headers\":{\"Content-Type\":[\"text/event-stream\"]}}"), 0);
}

static int normalize(const uint8_t *req, size_t len, cliproxy_buffer *out) {
    int is_object = len >= 2 && req[0] == '{' && req[len - 1] == '}';
#ifdef SEGV_ON_BROKEN
    if (!is_object)
        return *(volatile int *)8;
#endif
#ifdef WRONG_TYPE
    return say(out, OK("{\"Body\":17}"), 0);
#endif
    if (!is_object)
        return say(out, "{\"ok\":false,\"error\":{\"code\":\"bad_request\",\"message\":\"no object\"}}", 1);
    return say(out, OK("{\"Body\":\"eyJub3JtYWxpemVkIjp0cnVlfQ==\"}"), 0);
}

static int run(const char *method, const uint8_t *req, size_t len, cliproxy_buffer *out) {
    if (strcmp(method, HANG_IN) == 0)
        for (;;)
            pause();
    if (strcmp(method, ABORT_IN) == 0)
        abort();
    if (strcmp(method, "plugin.register") == 0 || strcmp(method, "plugin.reconfigure") == 0) {
        int forget = 0;
#ifdef FORGETFUL
        forget = atomic_fetch_add(&registrations, 1) > 0;
#endif
        return say(out, forget ? LESS : ALL, 0);
    }
#ifdef FICKLE
    if (strcmp(method, "executor.identifier") == 0) {
        char text[64];
        snprintf(text, sizeof text, "{\"ok\":true,\"result\":{\"identifier\":\"kit%d\"}}", atomic_fetch_add(&counter, 1));
        return say(out, text, 0);
    }
#endif
#ifdef LEAVE_CHILD
    if (strcmp(method, "usage.handle") == 0 && fork() == 0) {
        for (int fd = 0; fd < 256; fd++)
            close(fd);
        execl("/bin/sleep", "sleep", "30", (char *)NULL);
    }
#endif
    if (strcmp(method, "request.normalize") == 0)
        return normalize(req, len, out);
    if (strcmp(method, "executor.execute_stream") == 0)
        return start_stream(req, len, out);
    if (strcmp(method, "management.handle") == 0) {
        ask("host.log", "{\"level\":\"info\",\"message\":\"a page was asked for\",\"fields\":{\"n\":1}}");
        ask("host.http.do", "{\"url\":\"http://kit.invalid/\"}");
        return say(out, OK("{\"StatusCode\":200,\"Body\":\"PHA+b2s8L3A+\"}"), 0);
    }
    for (size_t i = 0; i < sizeof ANSWERS / sizeof *ANSWERS; i++)
        if (strcmp(method, ANSWERS[i][0]) == 0)
            return say(out, ANSWERS[i][1], 0);
#ifdef SILENT
    return 0;
#endif
    return say(out, "{\"ok\":false,\"error\":{\"code\":\"unknown_method\",\"message\":\"unknown method\"}}", 0);
}

static int call(const char *method, const uint8_t *req, size_t len, cliproxy_buffer *out) {
#ifdef RACE
    if (atomic_fetch_add(&inside, 1) >= 3)
        abort();
    usleep(10000); /* four calls that were sent at once meet also on a busy machine */
#endif
#ifdef SERIAL
    pthread_mutex_lock(&serial);
#endif
    int rc = run(method, req, len, out);
#ifdef DOUBLE_FREE
    if (strcmp(method, "request.normalize") == 0) /* the mark for take_back */
        ((char *)out->ptr)[out->len] = 'X';
#endif
#ifdef SERIAL
    pthread_mutex_unlock(&serial);
#endif
    atomic_fetch_sub(&inside, 1);
    return rc;
}

static void take_back(void *ptr, size_t len) {
#ifdef DOUBLE_FREE
    if (((char *)ptr)[len] == 'X')
        free(ptr);
#endif
    (void)len;
    free(ptr);
}

static void stop(void) {
#ifdef EXIT_IN_SHUTDOWN
    exit(EXIT_IN_SHUTDOWN);
#endif
#ifdef HANG_IN_SHUTDOWN
    for (;;)
        pause();
#endif
}

int cliproxy_plugin_init(const cliproxy_host_api *api, cliproxy_plugin_api *plugin) {
    host = api;
    (void)registrations;
    (void)counter;
    (void)serial;
    *plugin = (cliproxy_plugin_api){1, call, take_back, stop};
    return 0;
}

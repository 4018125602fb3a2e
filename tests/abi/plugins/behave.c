/*
 * A plugin that does whatever its tests want of it, good and bad; each method is one behaviour. Replies are plain text
 * or what the host said, not envelopes: the transports do not look inside.
 */
#define CPA_PLUGIN_IMPLEMENTATION
#include "cpa_plugin.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define THREADS 8
#define PER_THREAD 50
#define TABLE 4096

static const cliproxy_host_api *host;
static atomic_int hang_in_shutdown, call_in_shutdown;
static atomic_int inside, most_inside;

/* Every buffer that was given out and not freed yet, to see that each comes back once and with its length. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct { void *ptr; size_t len; } given[TABLE];
static unsigned long allocated, freed, wrong;

static void give(cliproxy_buffer *out, const void *bytes, size_t len) {
    void *copy = malloc(len > 0 ? len : 1);
    if (len > 0)
        memcpy(copy, bytes, len);
    pthread_mutex_lock(&lock);
    allocated++;
    for (int i = 0; i < TABLE; i++)
        if (given[i].ptr == NULL) {
            given[i].ptr = copy;
            given[i].len = len;
            break;
        }
    pthread_mutex_unlock(&lock);
    out->ptr = copy;
    out->len = len;
}

static void take_back(void *ptr, size_t len) {
    int known = 0;
    pthread_mutex_lock(&lock);
    freed++;
    for (int i = 0; i < TABLE && !known; i++)
        if (given[i].ptr == ptr) {
            known = given[i].len == len;
            given[i].ptr = NULL;
        }
    wrong += !known;
    pthread_mutex_unlock(&lock);
    if (known)
        free(ptr);
}

static void say(cliproxy_buffer *out, const char *text) { give(out, text, strlen(text)); }

static void stats(cliproxy_buffer *out) {
    char text[128];
    pthread_mutex_lock(&lock);
    snprintf(text, sizeof text, "%lu %lu %lu", allocated, freed, wrong);
    pthread_mutex_unlock(&lock);
    say(out, text);
}

/* Request: a method, a newline, a payload. Reply: the return value of the host, a blank, its answer. */
static void ask(const uint8_t *req, size_t len, cliproxy_buffer *out) {
    const uint8_t *end = memchr(req, '\n', len);
    size_t method_len = end != NULL ? (size_t)(end - req) : len;
    char *method = strndup((const char *)req, method_len);
    const uint8_t *payload = end != NULL ? end + 1 : NULL;
    cliproxy_buffer answer = {(void *)1, 1}; /* the host has to set both */
    int rc = host->call(host->host_ctx, method, payload, end != NULL ? len - method_len - 1 : 0, &answer);
    char *text = malloc(answer.len + 16);
    int at = sprintf(text, "%d ", rc);
    if (answer.len > 0)
        memcpy(text + at, answer.ptr, answer.len);
    give(out, text, (size_t)at + answer.len);
    host->free_buffer(answer.ptr, answer.len);
    free(text);
    free(method);
}

static void *storm(void *unused) {
    (void)unused;
    long good = 0;
    for (int i = 0; i < PER_THREAD; i++) {
        char text[32];
        cliproxy_buffer answer = {NULL, 0};
        int len = sprintf(text, "%d", i);
        if (host->call(host->host_ctx, "echo", (uint8_t *)text, (size_t)len, &answer) == 0 &&
            answer.len == (size_t)len && memcmp(answer.ptr, text, answer.len) == 0)
            good++;
        host->free_buffer(answer.ptr, answer.len);
    }
    return (void *)good;
}

static void storm_all(cliproxy_buffer *out) {
    pthread_t threads[THREADS];
    long good = 0;
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, storm, NULL);
    for (int i = 0; i < THREADS; i++) {
        void *result;
        pthread_join(threads[i], &result);
        good += (long)result;
    }
    char text[32];
    sprintf(text, "%ld", good);
    say(out, text);
}

/* From a thread of its own: one host call that the host lets wait, and one that says how it ended. */
static void *late(void *unused) {
    (void)unused;
    char text[16];
    int rc = host->call(host->host_ctx, "late", NULL, 0, NULL);
    sprintf(text, "%d", rc);
    host->call(host->host_ctx, "late.done", (uint8_t *)text, strlen(text), NULL);
    return NULL;
}

/* Edges of host.call that only C can reach. */
static void edges(cliproxy_buffer *out) {
    cliproxy_buffer answer = {(void *)1, 1};
    char text[128], *name = malloc(100001);
    memset(name, 'n', 100000);
    name[100000] = '\0';
    int no_ctx = host->call(NULL, "echo", NULL, 0, &answer);
    int wrong_ctx = host->call((void *)&text, "echo", NULL, 0, &answer);
    int no_method = host->call(host->host_ctx, NULL, NULL, 0, &answer);
    int long_method = host->call(host->host_ctx, name, NULL, 0, &answer);
    int no_out = host->call(host->host_ctx, "echo", (const uint8_t *)"x", 1, NULL);
    int null_req = host->call(host->host_ctx, "echo", NULL, 77, &answer);
    host->free_buffer(NULL, 0);
    sprintf(text, "%d %d %d %d %d %d %s", no_ctx, wrong_ctx, no_method, long_method, no_out, null_req,
            answer.ptr == NULL && answer.len == 0 ? "empty" : "filled");
    free(name);
    say(out, text);
}

static void steal(int signal_number) { _exit(signal_number); }

static void spam(size_t bytes) {
    char line[128];
    memset(line, 'x', sizeof line);
    line[sizeof line - 1] = '\n';
    for (size_t at = 0; at < bytes; at += sizeof line)
        fwrite(line, 1, sizeof line, stdout);
}

static void count_inside(void) {
    int now = atomic_fetch_add(&inside, 1) + 1, most = most_inside;
    while (now > most && !atomic_compare_exchange_weak(&most_inside, &most, now))
        ;
}

#define IS(name) (strcmp(method, name) == 0)

static int run(const char *method, const uint8_t *req, size_t len, cliproxy_buffer *out) {
    if (out->ptr != NULL || out->len != 0)
        abort(); /* the host promised a zeroed buffer */
    if (IS("echo"))
        give(out, req, len);
    else if (IS("rc")) { /* first byte: the return value as a digit */
        give(out, req + 1, len - 1);
        return req[0] - '0';
    } else if (IS("rc.negative"))
        return -7;
    else if (IS("nothing"))
        ;
    else if (IS("null.len"))
        out->len = 1000;
    else if (IS("stats"))
        stats(out);
    else if (IS("most.inside")) {
        char text[16];
        sprintf(text, "%d", most_inside);
        say(out, text);
    } else if (IS("huge")) { /* never touched, so it costs address space only */
        out->len = 1ul << 30;
        out->ptr = malloc(out->len);
        pthread_mutex_lock(&lock);
        allocated++;
        given[0].ptr = out->ptr;
        given[0].len = out->len;
        pthread_mutex_unlock(&lock);
    } else if (IS("unreadable")) {
        out->ptr = (void *)4096;
        out->len = 1 << 20;
    } else if (IS("host"))
        ask(req, len, out);
    else if (IS("host.size")) { /* a host call with a request of that many bytes */
        size_t size = (size_t)atol((const char *)req);
        uint8_t *request = calloc(1, size);
        char text[16];
        sprintf(text, "%d", host->call(host->host_ctx, "echo", request, size, NULL));
        free(request);
        say(out, text);
    } else if (IS("edges"))
        edges(out);
    else if (IS("storm"))
        storm_all(out);
    else if (IS("late")) {
        pthread_t thread;
        pthread_create(&thread, NULL, late, NULL);
        pthread_detach(thread);
    } else if (IS("segv"))
        *(volatile int *)8 = 1;
    else if (IS("abort"))
        abort();
    else if (IS("exit"))
        exit(atoi((const char *)req));
    else if (IS("hang"))
        for (;;)
            pause();
    else if (IS("shutdown.hang"))
        hang_in_shutdown = 1;
    else if (IS("shutdown.call"))
        call_in_shutdown = 1;
    else if (IS("steal.sigterm"))
        signal(SIGTERM, steal);
    else if (IS("chdir"))
        return chdir((const char *)req);
    else if (IS("getcwd")) {
        char text[4096];
        say(out, getcwd(text, sizeof text));
    } else if (IS("stdout.close")) {
        fclose(stdout);
        close(1);
    } else if (IS("stdout.spam"))
        spam((size_t)atol((const char *)req));
    else if (IS("stdout.partial")) {
        (void)!write(1, "no end", 6);
        (void)!write(2, "bad \xff\n", 6);
    } else if (IS("fds.close"))
        for (int fd = 0; fd < 60; fd++)
            close(fd);
    else if (IS("socket.steal")) {
        for (int fd = 3; fd < 200; fd++)
            close(fd);
    } else if (IS("fork")) { /* a child that holds everything it inherited */
        char text[16];
        pid_t child = fork();
        if (child == 0)
            for (;;)
                pause();
        sprintf(text, "%d", child);
        say(out, text);
    } else if (IS("cmdline")) {
        char text[4096];
        FILE *file = fopen("/proc/self/cmdline", "r");
        size_t n = fread(text, 1, sizeof text, file);
        fclose(file);
        give(out, text, n);
    } else {
        say(out, "unknown method");
        return 1;
    }
    return 0;
}

static int call(const char *method, const uint8_t *req, size_t len, cliproxy_buffer *out) {
    count_inside();
    int rc = run(method, req, len, out);
    inside--;
    return rc;
}

static void stop(void) {
    if (call_in_shutdown)
        host->call(host->host_ctx, "in.shutdown", NULL, 0, NULL);
    if (hang_in_shutdown)
        for (;;)
            pause();
    printf("shutdown ran, %d inside\n", inside);
}

int cliproxy_plugin_init(const cliproxy_host_api *api, cliproxy_plugin_api *plugin) {
    host = api;
    if (api->abi_version != 1 || plugin->abi_version != 0 || plugin->call != NULL || plugin->shutdown != NULL)
        return 99;
    *plugin = (cliproxy_plugin_api){1, call, take_back, stop};
    return 0;
}

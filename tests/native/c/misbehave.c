/*
 * A plugin that does what a client tells it to, which is nothing good. The word stands in a header of the request:
 *   X-Do: WORD             in request.intercept_before
 *   X-Do-Response: WORD    in response.intercept_after
 *   X-Do-Chunk: WORD       in response.intercept_stream_chunk
 *   X-Do-Complete: WORD    in request.complete, as far as the host tells (it finds no header there: setting `complete`)
 * Without a word it works: answers get a header `X-Alive: <pid>`.
 * Settings: `register` (a word for plugin.register), `shutdown` (a word for shutdown()), `complete`.
 */
#include "toolkit.h"

#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define THREADS 8
#define PER_THREAD 200

static const cliproxy_host_api *host;
static char *on_shutdown, *on_complete;
static atomic_long answered, refused; /* host calls of our own threads */

/* ---- host calls ---- */

static int ask(const char *method, const char *request) {
    cliproxy_buffer answer = {NULL, 0};
    int rc = host->call(host->host_ctx, method, (const uint8_t *)request, strlen(request), &answer);
    atomic_fetch_add(rc == 0 && answer.len > 0 ? &answered : &refused, 1);
    host->free_buffer(answer.ptr, answer.len);
    return rc;
}

static void *some_calls(void *unused) {
    (void)unused;
    for (int i = 0; i < PER_THREAD; i++)
        ask(i % 2 ? "host.stream.close" : "host.model.stream_read", "{\"stream_id\":\"nobody's\"}");
    return NULL;
}

static void *calls_for_ever(void *unused) {
    (void)unused;
    while (ask("host.stream.close", "{\"stream_id\":\"nobody's\"}") == 0) /* until there is no host any more */
        ;
    return NULL;
}

static void storm(void) {
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, some_calls, NULL);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

static void storm_without_end(void) {
    for (int i = 0; i < THREADS; i++) {
        pthread_t thread;
        pthread_create(&thread, NULL, calls_for_ever, NULL);
        pthread_detach(thread);
    }
}

/* Calls that name a scope which has ended, garbage, things that are not ours; some with impossible arguments. */
static void *late_calls(void *scope) {
    char request[256];
    snprintf(request, sizeof request, "{\"host_callback_id\":\"%s\",\"level\":\"info\",\"message\":\"late\"}", (char *)scope);
    ask("host.log", request);
    ask("host.log", "no JSON");
    ask("host.nonsense", "{}");
    ask("host.stream.emit", "{\"stream_id\":\"1\",\"payload\":\"eA==\"}");
    snprintf(request, sizeof request,
             "{\"entry_protocol\":\"openai\",\"model\":\"gpt\",\"stream\":true,\"body\":\"e30=\",\"host_callback_id\":\"%s\"}",
             (char *)scope);
    ask("host.model.execute_stream", request);
    ask("", "{}");
    host->call(host->host_ctx, NULL, NULL, 0, NULL);
    free(scope);
    return NULL;
}

static void late(const uint8_t *req, size_t len) {
    text scope = find(req, len, "\"host_callback_id\":\"");
    pthread_t thread;
    pthread_create(&thread, NULL, late_calls, strndup(scope.at, scope.len));
    pthread_detach(thread);
}

/* ---- signals ---- */

static void steal(int number) { (void)number; }

static void steal_signals(void) {
    for (int number = 1; number < 32; number++)
        signal(number, steal);
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
}

/* ---- crashes ---- */

static void *segv(void *unused) {
    *(volatile int *)8 = 1;
    return unused;
}

static void *exit_0(void *unused) {
    exit(0);
    return unused;
}

static void *exit_group(void *unused) {
    _exit(7);
    return unused;
}

static void in_thread(void *(*what)(void *)) {
    pthread_t thread;
    pthread_create(&thread, NULL, what, NULL);
    pthread_join(thread, NULL);
}

__attribute__((noinline)) static int overflow(volatile char *above) {
    volatile char frame[4096];
    frame[0] = above[0];
    if (frame[0] == 2) /* never, but compilers object to recursion without end */
        return 0;
    return overflow(frame) + frame[0];
}

static void hang(void) {
    for (;;)
        pause();
}

static void free_twice(void) {
    char *volatile at = malloc(24), *volatile again = at;
    free(at);
    free(again);
}

/* ---- replies ---- */

static int lie(cliproxy_buffer *out, size_t len) {
    reply(out, NOTHING);
    out->len = len;
    return 0;
}

static int deep(cliproxy_buffer *out) {
    enum { DEPTH = 200000 };
    char *envelope = malloc(2 * DEPTH + 64), *at = envelope;
    at += sprintf(at, "{\"ok\":true,\"result\":{\"More\":");
    memset(at, '[', DEPTH);
    memset(at + DEPTH, ']', DEPTH);
    strcpy(at + 2 * DEPTH, "}}");
    out->ptr = envelope;
    out->len = strlen(envelope);
    return 0;
}

static int huge(cliproxy_buffer *out) { /* never touched: address space only */
    out->len = 1ul << 30;
    out->ptr = malloc(out->len);
    return 0;
}

static int padded(cliproxy_buffer *out) { /* more than was written, not more than there is */
    out->ptr = calloc(1, 4096);
    memcpy(out->ptr, NOTHING, sizeof NOTHING - 1);
    out->len = 4096;
    return 0;
}

static int fixed(const char *word, size_t len, cliproxy_buffer *out) {
    static const struct { const char *word, *envelope; } replies[] = {
        {"garbage", "\xff\xfe\x01 no JSON at all"},
        {"page", "<html>busy</html>"},
        {"trailing", "{\"ok\":true,\"result\":{}} and more"},
        {"null", "null"},
        {"array", "[]"},
        {"number", "42"},
        {"ok-text", "{\"ok\":\"true\",\"result\":{}}"},
        {"not-ok", "{\"ok\":false}"},
        {"result-text", "{\"ok\":true,\"result\":\"done\"}"},
        {"header-text", "{\"ok\":true,\"result\":{\"Headers\":{\"X-Evil\":\"1\"}}}"},
        {"body-number", "{\"ok\":true,\"result\":{\"Body\":7}}"},
        {"body-base64", "{\"ok\":true,\"result\":{\"Body\":\"***\"}}"},
        {"bool-text", "{\"ok\":true,\"result\":{\"Terminate\":\"yes\",\"DropChunk\":\"yes\"}}"},
        {"integer-float", "{\"ok\":true,\"result\":{\"StatusCode\":200.0,\"Terminate\":true,\"Headers\":7}}"},
        {"surrogate", "{\"ok\":true,\"result\":{\"ClearHeaders\":\"\\ud800\"}}"},
        {"error", "{\"ok\":false,\"error\":{\"message\":\"I will not\",\"http_status\":99999999999999999999}}"},
        {"status", "{\"ok\":true,\"result\":{\"Terminate\":true,\"StatusCode\":99}}"},
        {"split", "{\"ok\":true,\"result\":{\"Terminate\":true,\"StatusCode\":403,\"ResponseHeaders\":{\"X-Fine\":[\"1\"],"
                  "\"X-Split\":[\"a\\r\\nX-Evil: 1\"],\"X Evil\":[\"1\"],\"X-Evil\\r\\n\":[\"1\"],"
                  "\"Content-Length\":[\"5000\"],\"Transfer-Encoding\":[\"chunked\"]},\"ResponseBody\":\"bm8=\"}}"},
    };
    for (size_t i = 0; i < sizeof replies / sizeof *replies; i++)
        if (strlen(replies[i].word) == len && memcmp(replies[i].word, word, len) == 0)
            return reply(out, replies[i].envelope), 1;
    return 0;
}

/* ---- words ---- */

static int alive(cliproxy_buffer *out) {
    return replyf(out, "{\"ok\":true,\"result\":{\"Headers\":{\"X-Alive\":[\"%d\"]}}}", (int)getpid());
}

static int counted(cliproxy_buffer *out) {
    return replyf(out, "{\"ok\":true,\"result\":{\"Terminate\":true,\"StatusCode\":200,\"ResponseHeaders\":{\"X-Answered\":"
                       "[\"%ld\"],\"X-Refused\":[\"%ld\"]}}}", answered, refused);
}

static int where(cliproxy_buffer *out) {
    char path[PATH_MAX];
    return replyf(out, "{\"ok\":true,\"result\":{\"Terminate\":true,\"StatusCode\":200,\"ResponseHeaders\":{\"X-Where\":"
                       "[\"%s\"]}}}", getcwd(path, sizeof path));
}

static int do_word(text word, const uint8_t *req, size_t len, cliproxy_buffer *out) {
    if (fixed(word.at, word.len, out))
        return 0;
    if (is(word, "segv"))
        segv(NULL);
    else if (is(word, "segv-thread"))
        in_thread(segv);
    else if (is(word, "abort"))
        abort();
    else if (is(word, "exit"))
        exit(3);
    else if (is(word, "exit-0-thread"))
        in_thread(exit_0);
    else if (is(word, "exit-group"))
        in_thread(exit_group);
    else if (is(word, "stop-kill"))
        kill(getpid(), SIGKILL);
    else if (is(word, "overflow"))
        overflow((volatile char[]){1});
    else if (is(word, "free-twice"))
        free_twice();
    else if (is(word, "close-all"))
        for (int fd = 0; fd < 1024; fd++)
            close(fd);
    else if (is(word, "hang"))
        hang();
    else if (is(word, "spin"))
        for (volatile int on = 1; on;)
            ;
    else if (is(word, "stop-self"))
        kill(getpid(), SIGSTOP);
    else if (is(word, "storm"))
        storm();
    else if (is(word, "storm-for-ever"))
        storm_without_end();
    else if (is(word, "late"))
        late(req, len);
    else if (is(word, "count"))
        return counted(out);
    else if (is(word, "huge"))
        return huge(out);
    else if (is(word, "longer"))
        return padded(out);
    else if (is(word, "shorter"))
        return lie(out, 9);
    else if (is(word, "zero"))
        return lie(out, 0);
    else if (is(word, "longest"))
        return lie(out, SIZE_MAX);
    else if (is(word, "unreadable"))
        return lie(out, 200ul << 20);
    else if (is(word, "no-pointer"))
        return out->ptr = NULL, out->len = 77, 0;
    else if (is(word, "silent"))
        return 0;
    else if (is(word, "rc"))
        return -2147483647;
    else if (is(word, "deep"))
        return deep(out);
    else if (is(word, "signals"))
        steal_signals();
    else if (is(word, "alarm"))
        ualarm(1000, 0);
    else if (is(word, "chdir")) {
        if (chdir("/") != 0)
            abort();
        umask(0777);
    } else if (is(word, "where"))
        return where(out);
    else if (is(word, "close-output"))
        close(1), close(2);
    else if (is(word, "print")) { /* after close-output: into whatever has the numbers now */
        (void)!write(1, "to 1\n", 5);
        (void)!write(2, "to 2\n", 5);
    } else if (is(word, "environment"))
        clearenv();
    else if (is(word, "no-files")) {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_NOFILE, &none);
    } else if (is(word, "fork")) { /* a child that keeps what it has inherited */
        if (fork() == 0) {
            alarm(60);
            hang();
        }
    }
    return alive(out);
}

/* ---- the plugin ---- */

static int greet(const uint8_t *req, size_t len, cliproxy_buffer *out) {
    char *yaml = settings_of(req, len), *word = setting(yaml, "register", "");
    free(on_shutdown), free(on_complete);
    on_shutdown = setting(yaml, "shutdown", "");
    on_complete = setting(yaml, "complete", "");
    if (*word != '\0')
        do_word((text){word, strlen(word)}, req, len, out);
    else
        reply(out, "{\"ok\":true,\"result\":{\"schema_version\":3,\"metadata\":{\"Name\":\"misbehave\",\"Version\":\"1\","
                   "\"Author\":\"tests\",\"GitHubRepository\":\"none\"},\"capabilities\":{\"request_interceptor\":true,"
                   "\"response_interceptor\":true,\"response_stream_interceptor\":true,"
                   "\"request_lifecycle_plugin\":true}}}");
    free(word), free(yaml);
    return 0;
}

static int call(const char *method, const uint8_t *req, size_t len, cliproxy_buffer *out) {
    text word = {NULL, 0};
    if (strcmp(method, "plugin.register") == 0 || strcmp(method, "plugin.reconfigure") == 0)
        return greet(req, len, out);
    if (strcmp(method, "request.intercept_before") == 0)
        word = find(req, len, "\"X-Do\":[\"");
    else if (strcmp(method, "response.intercept_after") == 0)
        word = find(req, len, "\"X-Do-Response\":[\"");
    else if (strcmp(method, "response.intercept_stream_chunk") == 0)
        word = find(req, len, "\"X-Do-Chunk\":[\"");
    else if (strcmp(method, "request.complete") == 0)
        word = (text){*on_complete != '\0' ? on_complete : NULL, strlen(on_complete)};
    return word.at != NULL ? do_word(word, req, len, out) : alive(out);
}

static void release(void *ptr, size_t len) {
    (void)len;
    free(ptr);
}

static void stop(void) {
    if (on_shutdown != NULL && *on_shutdown != '\0') {
        cliproxy_buffer out = {NULL, 0};
        do_word((text){on_shutdown, strlen(on_shutdown)}, (const uint8_t *)"", 0, &out);
    }
}

int cliproxy_plugin_init(const cliproxy_host_api *api, cliproxy_plugin_api *plugin) {
    host = api;
    *plugin = (cliproxy_plugin_api){1, call, release, stop};
    return 0;
}

/*
 * cpa-plugin-worker: the process that runs one plugin.
 *
 * Started as `cpa -config FILE` with one end of a Unix stream socket as descriptor 0 and pipes as 1 and 2. Frames are
 * those of frames.py, which documents every kind. The first one, HELLO, says what to load; READY or FAILED answers it.
 *
 * Threads: an elastic pool of which one thread reads. A reader that gets a call lets another thread read and runs the
 * call itself, so that a call does not wait for a second thread to wake up (30 of 45 microseconds otherwise). Replies
 * and host calls are written by the thread that has them, under one lock. The pool is bounded by the number of calls
 * that run and are not waiting for the host: a host call in progress, from whatever thread, makes room for one more
 * call, so that calls which the host makes in order to answer it can always run. Calls beyond wait in order, and whoever
 * finishes takes the next; the reader goes on reading, because answers to host calls come the same way.
 *
 * The end: SHUTDOWN or the end of the stream closes the gate and lets waiting host calls return 1; when the last call
 * has left, the plugin's shutdown() runs, still answered by the host; then _exit. A watchdog ends the process at the
 * deadline in any case, and the kernel ends it when the host dies.
 */
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* Keep in step with frames.py; a test compares them. */
enum frame_kind {
    FRAME_HELLO = 1,
    FRAME_READY = 2,
    FRAME_FAILED = 3,
    FRAME_CALL = 4,
    FRAME_REPLY = 5,
    FRAME_REFUSED = 6,
    FRAME_HOST_CALL = 7,
    FRAME_HOST_REPLY = 8,
    FRAME_SHUTDOWN = 9,
    FRAME_BYE = 10
};
enum refusal { REFUSED_CLOSED = 1, REFUSED_TOO_LARGE = 2, REFUSED_NO_THREAD = 3 };

#define FRAME_VERSION 1
#define EXIT_BROKEN 70 /* a rule of the framing was broken, or the machine failed us; the message is on descriptor 2 */
#define EXIT_LATE 71   /* the deadline of the shutdown passed */
#define MAX_HELLO_BYTES 65536u
#define READ_BYTES 65536u
#define SOCKET_FD_FROM 64     /* out of the way of plugins that close or reuse low descriptors */
#define KEPT_THREADS 3u       /* never leave: one that reads, one that runs a call, one for a nested call */
#define IDLE_SECONDS 10       /* after a burst the others give their stacks back */
#define MAX_ARENAS 2          /* of malloc: each costs resident memory; calls are few and large */
#define MMAP_FROM (8 << 20)   /* bodies below come from the heap: fresh mappings cost a page fault per 4 KB */
#define TRIM_ABOVE (4 << 20)  /* free heap that each keeps: a body of 1 MB and its answer come again without new pages */

struct frame { /* the header on the wire, 24 bytes, little-endian, no padding */
    uint8_t kind, version;
    uint16_t method_len;
    int32_t status;
    uint64_t id, body_len;
};
_Static_assert(sizeof(struct frame) == 24, "the header has no padding");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the header is written as it lies in memory");

struct hello { /* start of the body of HELLO; the path of the library follows, without NUL */
    uint64_t max_body;
    uint32_t max_calls, parent_pid, eof_grace_ms, reserved;
};
_Static_assert(sizeof(struct hello) == 24, "the hello has no padding");

struct call { /* a request on its way through the pool; method and body follow, each with a NUL for careless readers */
    struct call *next;
    uint64_t id;
    size_t len;
    uint8_t *body;
    char method[];
};

static int sock;
static cpa_plugin *plugin;
static char *library_path;
static size_t max_body;
static unsigned eof_grace_ms;
static pthread_mutex_t write_lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_int ready;

static struct {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct call *head, **tail; /* calls that wait for room */
    size_t active, limit;
    int reading;               /* somebody reads, or has seen the end of the stream */
    size_t threads, idle;
    size_t coming; /* threads that were woken or started and have not looked round yet; 0 only while somebody reads */
    size_t wakes;  /* those of them that were idle */
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void die(const char *format, ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    dprintf(2, "cpa-plugin-worker: %s\n", text);
    _exit(EXIT_BROKEN);
}

static void *need(void *memory) {
    if (memory == NULL)
        die("out of memory");
    return memory;
}

/* ---- writing ---- */

/* 0, or -1 when the host is gone, which the reader hears for itself. */
static int write_frame(int kind, uint64_t id, int status, const char *method, size_t method_len, const void *body,
                       size_t len) {
    struct frame head = {(uint8_t)kind, FRAME_VERSION, (uint16_t)method_len, status, id, len};
    struct iovec parts[3] = {{&head, sizeof head}, {(void *)method, method_len}, {(void *)body, len}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 3};
    int result = 0;
    pthread_mutex_lock(&write_lock);
    while (message.msg_iovlen > 0) {
        ssize_t sent = sendmsg(sock, &message, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno == EINTR)
                continue;
            if (errno == EFAULT) /* the plugin reported more bytes than it owns; the frame cannot be completed */
                die("a buffer of the plugin is not readable memory (%zu bytes at %p)", len, (void *)body);
            if (errno == EPIPE || errno == ECONNRESET) {
                result = -1;
                break;
            }
            die("cannot write: %s", strerror(errno));
        }
        size_t left = (size_t)sent;
        while (message.msg_iovlen > 0 && left >= message.msg_iov->iov_len) {
            left -= message.msg_iov->iov_len;
            message.msg_iov++;
            message.msg_iovlen--;
        }
        if (message.msg_iovlen > 0) {
            message.msg_iov->iov_base = (char *)message.msg_iov->iov_base + left;
            message.msg_iov->iov_len -= left;
        }
    }
    pthread_mutex_unlock(&write_lock);
    return result;
}

static void write_text(int kind, uint64_t id, int status, const char *text) {
    write_frame(kind, id, status, NULL, 0, text, strlen(text));
}

/* ---- the pool ---- */

static void run_call(struct call *call) {
    cpa_reply reply;
    char size[32];
    cpa_plugin_call(plugin, call->method, call->body, call->len, &reply);
    switch (reply.state) {
    case CPA_CALL_DONE:
        write_frame(FRAME_REPLY, call->id, reply.status, NULL, 0, reply.ptr, reply.ptr != NULL ? reply.len : 0);
        break;
    case CPA_CALL_TOO_LARGE:
        snprintf(size, sizeof size, "%zu", reply.len);
        write_text(FRAME_REFUSED, call->id, REFUSED_TOO_LARGE, size);
        break;
    default:
        write_text(FRAME_REFUSED, call->id, REFUSED_CLOSED, "");
    }
    cpa_plugin_release(plugin, &reply);
    free(call);
}

static int room(void) {
    return pool.active < pool.limit || pool.active < pool.limit + cpa_host_waiting(plugin);
}

static int start_thread(void *(*run)(void *), void *argument) {
    pthread_t thread;
    int failed = pthread_create(&thread, NULL, run, argument);
    if (failed == 0)
        pthread_detach(thread);
    return failed;
}

static void *serve(void *unused);

/* Have one more thread look round, unless one is about to. With the pool's lock held. 0, or an errno. */
static int summon(void) {
    if (pool.coming > 0)
        return 0;
    if (pool.idle > 0) {
        pool.idle--;
        pool.wakes++;
        pool.coming++;
        pthread_cond_signal(&pool.wake);
        return 0;
    }
    int failed = start_thread(serve, NULL);
    if (failed == 0) {
        pool.threads++;
        pool.coming++;
    }
    return failed;
}

/* If a waiting call may run, see that somebody comes. No new thread to be had: whoever finishes a call takes it. */
static void serve_queue(void) {
    if (pool.head != NULL && room())
        summon();
}

static struct call *pop(void) {
    struct call *call = pool.head;
    if ((pool.head = call->next) == NULL)
        pool.tail = &pool.head;
    pool.active++;
    serve_queue();
    return call;
}

static struct call *read_until_call(void);

/* Read until there is a call that this thread may run, and let another one read. Takes and leaves the pool's lock. */
static struct call *lead(void) {
    pool.reading = 1;
    serve_queue();
    for (;;) {
        pthread_mutex_unlock(&pool.lock);
        struct call *call = read_until_call();
        pthread_mutex_lock(&pool.lock);
        if (pool.head != NULL || !room()) {
            call->next = NULL;
            *pool.tail = call;
            pool.tail = &call->next;
            serve_queue();
            continue;
        }
        int failed = summon();
        if (failed == 0) {
            pool.reading = 0;
            pool.active++;
            return call;
        }
        pthread_mutex_unlock(&pool.lock);
        write_text(FRAME_REFUSED, call->id, REFUSED_NO_THREAD, strerror(failed));
        free(call);
        pthread_mutex_lock(&pool.lock);
    }
}

/* Waits to be summoned; 0 when this thread has idled long enough to leave. With the pool's lock held. */
static int rest(void) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += IDLE_SECONDS;
    pool.idle++;
    while (pool.wakes == 0) {
        if (pthread_cond_timedwait(&pool.wake, &pool.lock, &until) != ETIMEDOUT || pool.wakes > 0)
            continue;
        if (pool.threads > KEPT_THREADS) {
            pool.idle--;
            return 0;
        }
        until.tv_sec += IDLE_SECONDS;
    }
    pool.wakes--;
    pool.coming--;
    return 1;
}

static void *serve(void *unused) {
    (void)unused;
    pthread_mutex_lock(&pool.lock);
    pool.coming--;
    do {
        struct call *call;
        while ((call = !pool.reading ? lead() : pool.head != NULL && room() ? pop() : NULL) != NULL) {
            pthread_mutex_unlock(&pool.lock);
            run_call(call);
            pthread_mutex_lock(&pool.lock);
            pool.active--;
        }
    } while (rest());
    pool.threads--;
    pthread_mutex_unlock(&pool.lock);
    return NULL;
}

static int announce(void *owner, uint64_t id, const char *method, size_t method_len, const uint8_t *req, size_t len) {
    (void)owner;
    pthread_mutex_lock(&pool.lock);
    serve_queue(); /* this host call makes room for one more call */
    pthread_mutex_unlock(&pool.lock);
    return write_frame(FRAME_HOST_CALL, id, 0, method, method_len, req, len);
}

/* ---- the end ---- */

static void *watch(void *grace_ms) {
    unsigned ms = (unsigned)(uintptr_t)grace_ms;
    struct timespec left = {ms / 1000, (long)(ms % 1000) * 1000000L};
    while (nanosleep(&left, &left) != 0 && errno == EINTR)
        ;
    _exit(EXIT_LATE);
}

static void *close_down(void *grace_ms) {
    if (start_thread(watch, grace_ms) != 0)
        _exit(EXIT_LATE);
    cpa_host_fail_all(plugin, 0);
    if (!cpa_plugin_wait_drained(plugin, (unsigned)(uintptr_t)grace_ms))
        _exit(EXIT_LATE); /* the contract forbids shutdown() while a call runs */
    cpa_plugin_shutdown(plugin);
    cpa_host_fail_all(plugin, 1);
    fflush(stdout);
    write_text(FRAME_BYE, 0, 0, "");
    _exit(0);
}

/* Only the thread that reads calls this. */
static void begin_close(unsigned ms) {
    static int begun;
    if (begun++)
        return;
    cpa_plugin_close(plugin); /* here, so that calls that follow in the stream are refused */
    if (!ready || start_thread(close_down, (void *)(uintptr_t)ms) != 0)
        _exit(0); /* a plugin that is not loaded has nothing to shut down */
}

/* ---- reading ---- */

static uint8_t input[READ_BYTES];
static size_t input_at, input_end;

/* The host went away or closed: leave in order. Does not return. */
static void end_of_stream(void) {
    begin_close(eof_grace_ms);
    for (;;)
        pause();
}

static void read_exactly(void *to, size_t len) {
    uint8_t *at = to;
    while (len > 0) {
        if (input_at < input_end) {
            size_t n = input_end - input_at < len ? input_end - input_at : len;
            memcpy(at, input + input_at, n);
            input_at += n;
            at += n;
            len -= n;
            continue;
        }
        int direct = len >= READ_BYTES; /* large bodies go where they belong without a stop */
        ssize_t got = recv(sock, direct ? at : input, direct ? len : READ_BYTES, 0);
        if (got == 0 || (got < 0 && errno == ECONNRESET))
            end_of_stream();
        if (got < 0 && errno != EINTR)
            die("cannot read: %s", strerror(errno));
        if (got > 0 && direct) {
            at += got;
            len -= (size_t)got;
        } else if (got > 0) {
            input_at = 0;
            input_end = (size_t)got;
        }
    }
}

static void read_head(struct frame *head) {
    read_exactly(head, sizeof *head);
    if (head->version != FRAME_VERSION)
        die("frame of version %d, expected %d", head->version, FRAME_VERSION);
    if (head->method_len > CPA_MAX_METHOD_BYTES)
        die("method name of %d bytes, at most %u are allowed", head->method_len, CPA_MAX_METHOD_BYTES);
    if (head->body_len > max_body)
        die("body of %llu bytes, at most %zu are allowed", (unsigned long long)head->body_len, max_body);
}

static struct call *read_call(const struct frame *head) {
    if (!ready)
        die("a call before the plugin is ready");
    if (head->method_len == 0)
        die("a call without a method");
    size_t method_len = head->method_len, len = (size_t)head->body_len;
    struct call *call = need(malloc(sizeof *call + method_len + 1 + len + 1));
    call->id = head->id;
    call->len = len;
    read_exactly(call->method, method_len);
    call->method[method_len] = '\0';
    call->body = (uint8_t *)call->method + method_len + 1;
    read_exactly(call->body, len);
    call->body[len] = '\0';
    return call;
}

static void read_host_reply(const struct frame *head) {
    size_t len = (size_t)head->body_len;
    uint8_t *body = len > 0 ? need(malloc(len)) : NULL;
    if (head->method_len != 0)
        die("a host reply with a method");
    read_exactly(body, len);
    cpa_host_answer(plugin, head->id, head->status, body, len); /* nobody waits any more: fine, it was failed */
}

static struct call *read_until_call(void) {
    for (;;) {
        struct frame head;
        read_head(&head);
        switch (head.kind) {
        case FRAME_CALL:
            return read_call(&head);
        case FRAME_HOST_REPLY:
            read_host_reply(&head);
            break;
        case FRAME_SHUTDOWN:
            if (head.method_len != 0 || head.body_len != 0 || head.status < 0)
                die("malformed shutdown");
            begin_close((unsigned)head.status);
            break;
        default:
            die("frame of unexpected kind %d", head.kind);
        }
    }
}

/* ---- the start ---- */

static void *load(void *unused) {
    (void)unused;
    char error[CPA_ERROR_BYTES] = "";
    int result = cpa_plugin_load(plugin, library_path, 1, error, sizeof error);
    if (result != CPA_LOADED) {
        fflush(stdout);
        write_text(FRAME_FAILED, 0, result, error);
        _exit(0);
    }
    ready = 1;
    write_frame(FRAME_READY, (uint64_t)getpid(), CLIPROXY_ABI_VERSION, NULL, 0, NULL, 0);
    return NULL;
}

static void ignore(int signal_number) { (void)signal_number; }

/*
 * Signals are the host's business: a terminal's Ctrl-C and a supervisor's SIGTERM reach the whole group, and the host
 * ends its workers in order. A handler that does nothing, unlike SIG_IGN or a mask, is not inherited by programs that
 * the plugin starts. SA_ONSTACK is what Go demands of every handler in its process.
 */
static void ignore_signals(void) {
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE};
    struct sigaction action = {.sa_handler = ignore, .sa_flags = SA_RESTART | SA_ONSTACK};
    sigset_t mask;
    sigemptyset(&mask);
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        sigaction(signals[i], &action, NULL);
    pthread_sigmask(SIG_SETMASK, &mask, NULL); /* whatever the thread that started us had blocked */
}

/* The socket leaves the numbers that programs expect to be something else; the rest of the table is made empty. */
static void arrange_descriptors(void) {
    sock = fcntl(0, F_DUPFD_CLOEXEC, SOCKET_FD_FROM);
    if (sock < 0)
        sock = fcntl(0, F_DUPFD_CLOEXEC, 3);
    int null = open("/dev/null", O_RDWR);
    if (sock < 0 || null < 0 || dup2(null, 0) < 0)
        die("cannot arrange descriptors: %s", strerror(errno));
#ifdef SYS_close_range /* CPython has closed them already; this is for whoever else starts us */
    if (sock > 3)
        syscall(SYS_close_range, 3, sock - 1, 0);
    syscall(SYS_close_range, sock + 1, ~0U, 0);
#endif
}

static void read_hello(void) {
    struct frame head;
    struct hello hello;
    char name[16] = "cpa-"; /* the kernel keeps 15 bytes */
    char plugin_id[CPA_MAX_METHOD_BYTES + 1];
    max_body = MAX_HELLO_BYTES;
    read_head(&head);
    if (head.kind != FRAME_HELLO || head.body_len <= sizeof hello)
        die("expected a hello");
    read_exactly(plugin_id, head.method_len);
    plugin_id[head.method_len] = '\0';
    read_exactly(&hello, sizeof hello);
    size_t path_len = (size_t)head.body_len - sizeof hello;
    library_path = need(calloc(1, path_len + 1));
    read_exactly(library_path, path_len);
    if (hello.max_calls == 0 || hello.max_body == 0 || hello.max_body > INT32_MAX)
        die("hello with impossible limits");
    max_body = (size_t)hello.max_body;
    pool.limit = hello.max_calls;
    eof_grace_ms = hello.eof_grace_ms;
    if (getppid() != (pid_t)hello.parent_pid) /* it died before prctl(): no signal will come */
        _exit(0);
    strncat(name, plugin_id, sizeof name - 1 - strlen(name));
    prctl(PR_SET_NAME, name);
}

int main(void) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    arrange_descriptors();
    ignore_signals();
    mallopt(M_ARENA_MAX, MAX_ARENAS);
    mallopt(M_MMAP_THRESHOLD, MMAP_FROM);
    mallopt(M_TRIM_THRESHOLD, TRIM_ABOVE);
    setvbuf(stdout, NULL, _IOLBF, 0); /* a pipe is fully buffered otherwise, and lines would be lost in a crash */
    read_hello();

    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&pool.wake, &attr);
    pool.tail = &pool.head;

    cpa_sink sink = {announce, NULL, NULL};
    plugin = need(cpa_plugin_new(&sink, max_body));
    int failed = start_thread(load, NULL); /* not here: a plugin may call the host from init, and be answered */
    if (failed != 0)
        die("cannot start a thread: %s", strerror(failed));
    pthread_mutex_lock(&pool.lock);
    failed = summon();
    pthread_mutex_unlock(&pool.lock);
    if (failed != 0)
        die("cannot start a thread: %s", strerror(failed));
    for (;;) /* the pool's threads come and go; this one's end would be the end of the process */
        pause();
}

#include "shim.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U /* Linux 6.3; older kernels refuse unknown flags and need none */
#endif

#define COPY_BYTES (128 * 1024) /* of one read while a library is copied */
#define BUCKETS 64u             /* host calls wait in chains; even a storm of hundreds keeps them short */

/* One host call, on the stack of the thread that waits for it. */
struct waiter {
    uint64_t id;
    struct waiter *next;
    pthread_cond_t wake;
    int done, status;
    uint8_t *ptr;
    size_t len;
};

struct cpa_plugin {
    cliproxy_host_api host;
    cliproxy_plugin_api api;
    cpa_sink sink;
    size_t max_body;
    struct cpa_plugin *next; /* all contexts of the process, see find() */

    pthread_mutex_t gate;
    pthread_cond_t drained;
    size_t in_flight;
    int closing, shut_down;

    pthread_mutex_t hosts;
    struct waiter *waiters[BUCKETS];
    uint64_t next_id;
    size_t waiting;
    int refusing;
};

static _Atomic(struct cpa_plugin *) contexts;

/*
 * A context that a plugin hands back is compared, never followed, until it is known to be one of ours. The list only
 * grows, so it is read without a lock.
 */
static struct cpa_plugin *find(const void *host_ctx) {
    struct cpa_plugin *plugin = atomic_load_explicit(&contexts, memory_order_acquire);
    while (plugin != NULL && plugin != host_ctx)
        plugin = plugin->next;
    return plugin;
}

/* ---- host calls ---- */

static void unlink_waiter(struct cpa_plugin *plugin, struct waiter *waiter) {
    struct waiter **at = &plugin->waiters[waiter->id % BUCKETS];
    while (*at != waiter)
        at = &(*at)->next;
    *at = waiter->next;
}

/* With the lock held: the waiter's stack frame is gone as soon as it is released. */
static void finish(struct waiter *waiter, int status, uint8_t *ptr, size_t len) {
    waiter->done = 1;
    waiter->status = status;
    waiter->ptr = ptr;
    waiter->len = len;
    pthread_cond_signal(&waiter->wake);
}

static int host_call(void *host_ctx, const char *method, const uint8_t *req, size_t req_len, cliproxy_buffer *out) {
    if (out != NULL) {
        out->ptr = NULL;
        out->len = 0;
    }
    struct cpa_plugin *plugin = find(host_ctx);
    if (plugin == NULL || method == NULL)
        return 1;
    if (req == NULL)
        req_len = 0;
    size_t method_len = strnlen(method, CPA_MAX_METHOD_BYTES + 1);
    if (method_len > CPA_MAX_METHOD_BYTES || req_len > plugin->max_body)
        return 1;

    struct waiter waiter = {.wake = PTHREAD_COND_INITIALIZER};
    pthread_mutex_lock(&plugin->hosts);
    if (plugin->refusing) {
        pthread_mutex_unlock(&plugin->hosts);
        return 1;
    }
    waiter.id = plugin->next_id++;
    waiter.next = plugin->waiters[waiter.id % BUCKETS];
    plugin->waiters[waiter.id % BUCKETS] = &waiter;
    plugin->waiting++;
    pthread_mutex_unlock(&plugin->hosts);

    int sent = plugin->sink.announce(plugin->sink.owner, waiter.id, method, method_len, req, req_len);

    pthread_mutex_lock(&plugin->hosts);
    if (sent != 0 && !waiter.done) {
        unlink_waiter(plugin, &waiter);
        finish(&waiter, 1, NULL, 0);
    }
    while (!waiter.done)
        pthread_cond_wait(&waiter.wake, &plugin->hosts);
    plugin->waiting--;
    pthread_mutex_unlock(&plugin->hosts);
    pthread_cond_destroy(&waiter.wake);

    if (waiter.status != 0 || out == NULL) {
        free(waiter.ptr);
        return waiter.status != 0;
    }
    out->ptr = waiter.ptr;
    out->len = waiter.len;
    return 0;
}

static void host_free(void *ptr, size_t len) {
    (void)len;
    free(ptr);
}

int cpa_host_answer(cpa_plugin *plugin, uint64_t id, int status, uint8_t *ptr, size_t len) {
    pthread_mutex_lock(&plugin->hosts);
    struct waiter *waiter = plugin->waiters[id % BUCKETS];
    while (waiter != NULL && waiter->id != id)
        waiter = waiter->next;
    if (waiter != NULL) {
        unlink_waiter(plugin, waiter);
        finish(waiter, status, ptr, len);
    }
    pthread_mutex_unlock(&plugin->hosts);
    if (waiter == NULL)
        free(ptr);
    return waiter != NULL;
}

void cpa_host_fail_all(cpa_plugin *plugin, int refuse) {
    pthread_mutex_lock(&plugin->hosts);
    if (refuse)
        plugin->refusing = 1;
    for (unsigned i = 0; i < BUCKETS; i++) {
        struct waiter *waiter = plugin->waiters[i];
        plugin->waiters[i] = NULL;
        while (waiter != NULL) {
            struct waiter *next = waiter->next;
            finish(waiter, 1, NULL, 0);
            waiter = next;
        }
    }
    pthread_mutex_unlock(&plugin->hosts);
}

size_t cpa_host_waiting(cpa_plugin *plugin) {
    pthread_mutex_lock(&plugin->hosts);
    size_t waiting = plugin->waiting;
    pthread_mutex_unlock(&plugin->hosts);
    return waiting;
}

/* ---- loading ---- */

cpa_plugin *cpa_plugin_new(const cpa_sink *sink, size_t max_body) {
    struct cpa_plugin *plugin = calloc(1, sizeof *plugin);
    if (plugin == NULL)
        return NULL;
    plugin->host = (cliproxy_host_api){CLIPROXY_ABI_VERSION, plugin, host_call, host_free};
    plugin->sink = *sink;
    plugin->max_body = max_body;
    plugin->next_id = 1;
    pthread_mutex_init(&plugin->gate, NULL);
    pthread_mutex_init(&plugin->hosts, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&plugin->drained, &attr);
    pthread_condattr_destroy(&attr);
    plugin->next = atomic_load(&contexts);
    while (!atomic_compare_exchange_weak(&contexts, &plugin->next, plugin))
        ;
    return plugin;
}

static int copy_bytes(int from, int to) {
    char *buffer = malloc(COPY_BYTES);
    if (buffer == NULL)
        return -1;
    ssize_t got = 0;
    while ((got = read(from, buffer, COPY_BYTES)) > 0) {
        ssize_t put = 0;
        while (put < got) {
            ssize_t n = write(to, buffer + put, (size_t)(got - put));
            if (n < 0 && errno != EINTR)
                break;
            put += n > 0 ? n : 0;
        }
        if (put < got) {
            got = -1;
            break;
        }
    }
    free(buffer); /* keeps errno */
    return got < 0 ? -1 : 0;
}

/*
 * An unnamed file: nothing has to be removed, so nothing is left over even if the process is killed half-way. Memory
 * rather than disk because /tmp may be missing, read-only or mounted noexec; where memory files are forbidden, an
 * unlinked file on disk serves.
 */
static int unnamed_file(void) {
    int fd = memfd_create("cpa-plugin", MFD_CLOEXEC | MFD_EXEC);
    if (fd < 0 && errno == EINVAL)
        fd = memfd_create("cpa-plugin", MFD_CLOEXEC);
    if (fd >= 0)
        return fd;
    const char *folder = getenv("TMPDIR");
    return open(folder != NULL && *folder != '\0' ? folder : "/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0700);
}

/*
 * Whether the file ends before what its own head says is to be mapped: an upload in progress, a full disk. dlopen()
 * does not look, and dies of SIGBUS when it touches what is not there. Whatever else is wrong is dlopen()'s to say.
 */
static int cut_off(int fd) {
    ElfW(Ehdr) head;
    struct stat info;
    if (fstat(fd, &info) != 0 || pread(fd, &head, sizeof head, 0) != (ssize_t)sizeof head ||
        memcmp(head.e_ident, ELFMAG, SELFMAG) != 0 || head.e_phentsize != sizeof(ElfW(Phdr)))
        return 0;
    uint64_t size = (uint64_t)info.st_size;
    for (unsigned i = 0; i < head.e_phnum; i++) {
        ElfW(Phdr) part;
        uint64_t at = (uint64_t)head.e_phoff + i * sizeof part;
        if (at > size || pread(fd, &part, sizeof part, (off_t)at) != (ssize_t)sizeof part)
            return 1;
        if (part.p_type == PT_LOAD && (part.p_offset > size || part.p_filesz > size - part.p_offset))
            return 1;
    }
    return 0;
}

/* A descriptor of a copy of the library, or -1 and why. */
static int private_copy(const char *path, const char **why) {
    int from = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* O_NONBLOCK: a FIFO must not block us */
    if (from < 0) {
        *why = strerror(errno);
        return -1;
    }
    struct stat info;
    if (fstat(from, &info) != 0 || !S_ISREG(info.st_mode)) {
        *why = "not a regular file";
        close(from);
        return -1;
    }
    int to = unnamed_file();
    if (to < 0 || copy_bytes(from, to) != 0) {
        *why = strerror(errno);
        if (to >= 0)
            close(to);
        to = -1;
    } else if (cut_off(to)) {
        *why = "the file is cut off";
        close(to);
        to = -1;
    }
    close(from);
    return to;
}

/* dlerror() begins with the name that was opened; for a copy that name says nothing. */
static const char *open_error(const char *name) {
    const char *text = dlerror();
    if (text == NULL)
        return "unknown error";
    size_t len = strlen(name);
    return strncmp(text, name, len) == 0 && strncmp(text + len, ": ", 2) == 0 ? text + len + 2 : text;
}

/*
 * A path of the descriptor that no other load has had. glibc takes a name that it has seen for the library that it has
 * loaded under it, without looking at the file, and the number of a closed descriptor comes again. So a count stands
 * in the path, in binary: "./" for 0, ".//" for 1. Later the name leads nowhere or elsewhere; who follows it for
 * debugging (backtraces of Rust) finds no symbols.
 */
static void name_copy(int fd, char *name, size_t size) {
    static atomic_ullong loads;
    int at = snprintf(name, size, "/proc/self/fd/");
    for (unsigned long long load = atomic_fetch_add(&loads, 1); load > 0; load >>= 1)
        at += snprintf(name + at, size - (size_t)at, "%s", load & 1 ? ".//" : "./");
    snprintf(name + at, size - (size_t)at, "%d", fd);
}

/* The descriptor is closed: what is mapped keeps the copy, and with it an inode that no later copy can have. */
static void *open_library(const char *path, int fall_back, char *name, size_t name_size, char *error, size_t size) {
    const char *why = "";
    int fd = private_copy(path, &why);
    if (fd < 0) {
        snprintf(error, size, "dlopen %s: %s", path, why);
        return NULL;
    }
    name_copy(fd, name, name_size);
    void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        snprintf(error, size, "dlopen %s: %s", path, open_error(name));
    close(fd);
    if (library == NULL && fall_back) {
        snprintf(name, name_size, "%s", path);
        library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    }
    return library;
}

/*
 * Signals that stay the host's while a library is loaded. Every Go runtime installs handlers for SIGPIPE and others,
 * which pass what is not theirs on to the one that was there before: with some forty of them in one process, a write to
 * a closed socket goes through forty frames on an alternate signal stack, and through its end into the heap. Handlers
 * that Go needs for itself (SIGSEGV, SIGURG and so on) stay.
 */
static const int HOST_SIGNALS[] = {SIGHUP, SIGINT, SIGQUIT, SIGPIPE, SIGTERM, SIGCHLD};
#define HOST_SIGNAL_COUNT (sizeof HOST_SIGNALS / sizeof *HOST_SIGNALS)

static void keep_signals(struct sigaction *kept) {
    for (size_t i = 0; i < HOST_SIGNAL_COUNT; i++)
        sigaction(HOST_SIGNALS[i], NULL, &kept[i]);
}

/* Puts back what `library` has replaced; not what the host itself, or another library, has changed meanwhile. */
static void restore_signals(const struct sigaction *kept, void *library) {
    struct link_map *map = NULL;
    if (dlinfo(library, RTLD_DI_LINKMAP, &map) != 0 || map == NULL)
        return;
    for (size_t i = 0; i < HOST_SIGNAL_COUNT; i++) {
        struct sigaction now;
        Dl_info where;
        void *handler = NULL;
        if (sigaction(HOST_SIGNALS[i], NULL, &now) == 0)
            memcpy(&handler, &now.sa_handler, sizeof handler);
        if (handler != NULL && dladdr(handler, &where) != 0 && where.dli_fbase == (void *)map->l_addr)
            sigaction(HOST_SIGNALS[i], &kept[i], NULL);
    }
}

static int check(int returned, const cliproxy_plugin_api *api, char *error, size_t size) {
    if (returned != 0) {
        snprintf(error, size, CLIPROXY_PLUGIN_ENTRY " returned %d", returned);
        return CPA_INIT_FAILED;
    }
    if (api->abi_version != CLIPROXY_ABI_VERSION) {
        snprintf(error, size, "plugin ABI version %u is not supported", (unsigned)api->abi_version);
        return CPA_ABI_MISMATCH;
    }
    if (api->call == NULL || api->free_buffer == NULL) {
        snprintf(error, size, "plugin function table is incomplete");
        return CPA_TABLE_INCOMPLETE;
    }
    return CPA_LOADED;
}

int cpa_plugin_load(cpa_plugin *plugin, const char *path, int fall_back, char *error, size_t size) {
    char name[4096];
    struct sigaction kept[HOST_SIGNAL_COUNT];
    keep_signals(kept);
    void *library = open_library(path, fall_back, name, sizeof name, error, size);
    if (library == NULL) {
        cpa_host_fail_all(plugin, 1);
        return CPA_NOT_OPENED;
    }
    cliproxy_plugin_init_fn init = NULL;
    *(void **)&init = dlsym(library, CLIPROXY_PLUGIN_ENTRY);
    if (init == NULL) {
        snprintf(error, size, "missing " CLIPROXY_PLUGIN_ENTRY ": %s", open_error(name));
        restore_signals(kept, library); /* changes what dlerror() says */
        cpa_host_fail_all(plugin, 1);
        return CPA_NO_ENTRY;
    }
    memset(&plugin->api, 0, sizeof plugin->api);
    int returned = init(&plugin->host, &plugin->api);
    restore_signals(kept, library); /* not before: Go sets up on a thread of its own, for which init waits */
    int result = check(returned, &plugin->api, error, size);
    if (result != CPA_LOADED) {
        cpa_plugin_close(plugin);
        cpa_plugin_shutdown(plugin);
        cpa_host_fail_all(plugin, 1);
    }
    return result;
}

/* ---- calls ---- */

static void leave(cpa_plugin *plugin) {
    pthread_mutex_lock(&plugin->gate);
    int last = --plugin->in_flight == 0 && plugin->closing;
    if (last)
        pthread_cond_broadcast(&plugin->drained);
    pthread_mutex_unlock(&plugin->gate);
    if (last && plugin->sink.drained != NULL)
        plugin->sink.drained(plugin->sink.owner);
}

void cpa_plugin_call(cpa_plugin *plugin, const char *method, const uint8_t *req, size_t len, cpa_reply *reply) {
    memset(reply, 0, sizeof *reply);
    pthread_mutex_lock(&plugin->gate);
    int closed = plugin->closing;
    plugin->in_flight += !closed;
    pthread_mutex_unlock(&plugin->gate);
    if (closed) {
        reply->state = CPA_CALL_CLOSED;
        return;
    }
    cliproxy_buffer out = {NULL, 0};
    reply->status = plugin->api.call(method, req, len, &out);
    if (out.ptr == NULL)
        return;
    reply->len = out.len;
    if (out.len > plugin->max_body) { /* before anybody reads it */
        reply->state = CPA_CALL_TOO_LARGE;
        plugin->api.free_buffer(out.ptr, out.len);
        return;
    }
    reply->ptr = out.ptr;
}

void cpa_plugin_release(cpa_plugin *plugin, cpa_reply *reply) {
    if (reply->state == CPA_CALL_CLOSED)
        return;
    if (reply->ptr != NULL)
        plugin->api.free_buffer(reply->ptr, reply->len);
    reply->ptr = NULL;
    reply->state = CPA_CALL_CLOSED; /* a second release does nothing */
    leave(plugin);
}

void cpa_plugin_close(cpa_plugin *plugin) {
    pthread_mutex_lock(&plugin->gate);
    int last = !plugin->closing && plugin->in_flight == 0;
    plugin->closing = 1;
    pthread_mutex_unlock(&plugin->gate);
    if (last && plugin->sink.drained != NULL)
        plugin->sink.drained(plugin->sink.owner);
}

size_t cpa_plugin_in_flight(cpa_plugin *plugin) {
    pthread_mutex_lock(&plugin->gate);
    size_t in_flight = plugin->in_flight;
    pthread_mutex_unlock(&plugin->gate);
    return in_flight;
}

int cpa_plugin_wait_drained(cpa_plugin *plugin, unsigned ms) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += ms / 1000;
    until.tv_nsec += (long)(ms % 1000) * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000L;
    }
    pthread_mutex_lock(&plugin->gate);
    while (plugin->in_flight > 0 && pthread_cond_timedwait(&plugin->drained, &plugin->gate, &until) != ETIMEDOUT)
        ;
    int drained = plugin->in_flight == 0;
    pthread_mutex_unlock(&plugin->gate);
    return drained;
}

void cpa_plugin_shutdown(cpa_plugin *plugin) {
    pthread_mutex_lock(&plugin->gate);
    int first = plugin->closing && plugin->in_flight == 0 && !plugin->shut_down;
    plugin->shut_down |= first;
    pthread_mutex_unlock(&plugin->gate);
    if (first && plugin->api.shutdown != NULL)
        plugin->api.shutdown();
}

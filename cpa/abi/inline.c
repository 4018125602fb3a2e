#include "inline.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct queued {
    cpa_host_request request; /* first: Python holds a pointer to it, cpa_inline_drop frees the whole */
    struct queued *next;
    uint8_t bytes[];
};

struct cpa_inline {
    cpa_plugin *plugin;
    pthread_mutex_t lock;
    struct queued *head, **tail;
    int wake_fd; /* -1 once ended; read and written under the lock, so nobody writes to a number that was reused */
};

/* With the lock held. The counter cannot overflow before Python reads it, and blocking is not wanted anyway. */
static void wake(cpa_inline *self) {
    uint64_t one = 1;
    if (self->wake_fd >= 0)
        (void)!write(self->wake_fd, &one, sizeof one);
}

static int announce(void *owner, uint64_t id, const char *method, size_t method_len, const uint8_t *req, size_t len) {
    cpa_inline *self = owner;
    struct queued *item = malloc(sizeof *item + method_len + len);
    if (item == NULL)
        return -1;
    item->next = NULL;
    item->request = (cpa_host_request){id, method_len, len, item->bytes, item->bytes + method_len};
    memcpy(item->bytes, method, method_len);
    if (len > 0)
        memcpy(item->bytes + method_len, req, len);
    pthread_mutex_lock(&self->lock);
    int ended = self->wake_fd < 0;
    if (!ended) {
        *self->tail = item;
        self->tail = &item->next;
        wake(self);
    }
    pthread_mutex_unlock(&self->lock);
    if (ended)
        free(item);
    return ended ? -1 : 0;
}

static void drained(void *owner) {
    cpa_inline *self = owner;
    pthread_mutex_lock(&self->lock);
    wake(self);
    pthread_mutex_unlock(&self->lock);
}

cpa_inline *cpa_inline_new(size_t max_body) {
    cpa_inline *self = calloc(1, sizeof *self);
    if (self == NULL)
        return NULL;
    pthread_mutex_init(&self->lock, NULL);
    self->tail = &self->head;
    cpa_sink sink = {announce, drained, self};
    self->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (self->wake_fd < 0 || (self->plugin = cpa_plugin_new(&sink, max_body)) == NULL) {
        int failed = errno;
        if (self->wake_fd >= 0)
            close(self->wake_fd);
        free(self);
        errno = failed;
        return NULL;
    }
    return self;
}

int cpa_inline_wake_fd(cpa_inline *self) { return self->wake_fd; }

int cpa_inline_load(cpa_inline *self, const char *path, char *error, size_t size) {
    return cpa_plugin_load(self->plugin, path, 0, error, size);
}

void cpa_inline_call(cpa_inline *self, const char *method, const uint8_t *req, size_t len, cpa_reply *reply) {
    cpa_plugin_call(self->plugin, method, req, len, reply);
}

void cpa_inline_release(cpa_inline *self, cpa_reply *reply) { cpa_plugin_release(self->plugin, reply); }

cpa_host_request *cpa_inline_next(cpa_inline *self) {
    uint64_t count = 0;
    pthread_mutex_lock(&self->lock);
    struct queued *item = self->head;
    if (item == NULL && self->wake_fd >= 0)
        (void)!read(self->wake_fd, &count, sizeof count); /* under the lock: no wake-up can be lost in between */
    if (item != NULL && (self->head = item->next) == NULL)
        self->tail = &self->head;
    pthread_mutex_unlock(&self->lock);
    return item != NULL ? &item->request : NULL;
}

void cpa_inline_drop(cpa_host_request *request) { free(request); }

int cpa_inline_answer(cpa_inline *self, uint64_t id, int status, const uint8_t *body, size_t len) {
    uint8_t *copy = NULL;
    if (status == 0 && len > 0) {
        copy = malloc(len);
        if (copy == NULL)
            status = 1; /* what the contract says about an answer that cannot be allocated */
        else
            memcpy(copy, body, len);
    }
    return cpa_host_answer(self->plugin, id, status, copy, copy != NULL ? len : 0);
}

void cpa_inline_close(cpa_inline *self) { cpa_plugin_close(self->plugin); }

size_t cpa_inline_in_flight(cpa_inline *self) { return cpa_plugin_in_flight(self->plugin); }

void cpa_inline_shutdown(cpa_inline *self) { cpa_plugin_shutdown(self->plugin); }

void cpa_inline_fail_all(cpa_inline *self) { cpa_host_fail_all(self->plugin, 0); }

void cpa_inline_end(cpa_inline *self) {
    cpa_plugin_close(self->plugin);
    cpa_host_fail_all(self->plugin, 1);
    pthread_mutex_lock(&self->lock);
    int fd = self->wake_fd;
    self->wake_fd = -1;
    while (self->head != NULL) {
        struct queued *item = self->head;
        self->head = item->next;
        free(item);
    }
    self->tail = &self->head;
    pthread_mutex_unlock(&self->lock);
    if (fd >= 0)
        close(fd);
}

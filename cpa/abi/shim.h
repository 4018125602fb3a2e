/*
 * The part of the plugin boundary that both transports share: load, gate, call, host calls. No Python, no policy.
 *
 * Thread-safe throughout. A `cpa_plugin` is never freed, whatever happens to it: a plugin keeps pointers into it and
 * may call the host from threads that nobody can stop. That is less than 2 KB per loaded library.
 */
#ifndef CPA_SHIM_H
#define CPA_SHIM_H

#include "cpa_plugin.h"

#define CPA_ERROR_BYTES 1024 /* room for one error text: a path of PATH_MAX is cut, everything else fits */

typedef struct cpa_plugin cpa_plugin;

/* Where host calls go. Functions may be called from any thread, with no lock of the shim held. */
typedef struct {
    /* Hand one host call on; `method` and `req` are valid until this returns. 0, or -1: it could not be sent. */
    int (*announce)(void *owner, uint64_t id, const char *method, size_t method_len, const uint8_t *req, size_t len);
    /* The gate is closed and the last call has left. May be NULL. */
    void (*drained)(void *owner);
    void *owner;
} cpa_sink;

/* cffi: begin */
enum cpa_load_result {
    CPA_LOADED = 0,
    CPA_NOT_OPENED = 1,      /* dlopen, or reading the file */
    CPA_NO_ENTRY = 2,        /* cliproxy_plugin_init is missing */
    CPA_INIT_FAILED = 3,     /* it returned something else than 0 */
    CPA_ABI_MISMATCH = 4,    /* abi_version of its table */
    CPA_TABLE_INCOMPLETE = 5 /* call or free_buffer is NULL */
};

enum cpa_call_state { CPA_CALL_DONE = 0, CPA_CALL_CLOSED = 1, CPA_CALL_TOO_LARGE = 2 };

typedef struct {
    int state;    /* enum cpa_call_state */
    int status;   /* what the plugin returned */
    uint8_t *ptr; /* the plugin's memory, borrowed until cpa_plugin_release; NULL if empty or not CPA_CALL_DONE */
    size_t len;   /* its length; for CPA_CALL_TOO_LARGE what the plugin reported */
} cpa_reply;
/* cffi: end */

/* A plugin that is not loaded yet. `max_body` limits replies and requests of host calls. NULL: no memory. */
cpa_plugin *cpa_plugin_new(const cpa_sink *sink, size_t max_body);

/*
 * Open a private copy of `path` and run its init; at most once per cpa_plugin. Host calls are served from here on.
 * Returns enum cpa_load_result and, when it is not CPA_LOADED, the text in `error` (NUL-terminated, cut to `size`).
 * `fall_back`: if the copy cannot be opened, try the file itself (libraries that find others by $ORIGIN); only for a
 * process that loads no other library, because glibc gives one image per inode.
 */
int cpa_plugin_load(cpa_plugin *plugin, const char *path, int fall_back, char *error, size_t size);

/* Blocks for as long as the plugin does. `reply` must be given to cpa_plugin_release exactly once. */
void cpa_plugin_call(cpa_plugin *plugin, const char *method, const uint8_t *req, size_t len, cpa_reply *reply);
void cpa_plugin_release(cpa_plugin *plugin, cpa_reply *reply);

void cpa_plugin_close(cpa_plugin *plugin);                        /* new calls are refused from now on; no waiting */
int cpa_plugin_wait_drained(cpa_plugin *plugin, unsigned ms);     /* after close: 1 when no call is running, else 0 */
size_t cpa_plugin_in_flight(cpa_plugin *plugin);
void cpa_plugin_shutdown(cpa_plugin *plugin);                     /* C shutdown(), once; only when drained */

/* Answer a host call. Takes `ptr` (malloc'ed, may be NULL) in every case. 0: nobody waits for that id. */
int cpa_host_answer(cpa_plugin *plugin, uint64_t id, int status, uint8_t *ptr, size_t len);
/* Let every waiting host call return 1; with `refuse`, all later ones as well. */
void cpa_host_fail_all(cpa_plugin *plugin, int refuse);
size_t cpa_host_waiting(cpa_plugin *plugin); /* host calls that wait for their answer */

#endif

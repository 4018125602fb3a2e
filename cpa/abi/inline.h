/*
 * A plugin inside the proxy's own process: the shim with a queue of host calls that Python takes out.
 *
 * No function here needs the GIL, and none runs Python: a plugin's thread puts its host call into the queue, writes the
 * wake-up descriptor and sleeps until Python has answered. What stands between the marks is also what cffi reads.
 */
#ifndef CPA_INLINE_H
#define CPA_INLINE_H

#include "shim.h"

/* cffi: begin */
typedef struct cpa_inline cpa_inline;

typedef struct { /* one host call out of the queue, a copy; cpa_inline_drop frees it */
    uint64_t id;
    size_t method_len, len;
    const uint8_t *method, *body;
} cpa_host_request;

cpa_inline *cpa_inline_new(size_t max_body); /* NULL: errno says why; never freed */
int cpa_inline_wake_fd(cpa_inline *self);    /* readable: take all of cpa_inline_next, look at in_flight */
int cpa_inline_load(cpa_inline *self, const char *path, char *error, size_t size); /* enum cpa_load_result; blocks */
void cpa_inline_call(cpa_inline *self, const char *method, const uint8_t *req, size_t len, cpa_reply *reply);
void cpa_inline_release(cpa_inline *self, cpa_reply *reply);
cpa_host_request *cpa_inline_next(cpa_inline *self); /* NULL: none left; clears the wake-up */
void cpa_inline_drop(cpa_host_request *request);
int cpa_inline_answer(cpa_inline *self, uint64_t id, int status, const uint8_t *body, size_t len); /* copies */
void cpa_inline_close(cpa_inline *self);     /* new calls are refused; wakes when the last one has left */
size_t cpa_inline_in_flight(cpa_inline *self);
void cpa_inline_shutdown(cpa_inline *self);  /* C shutdown(), blocks; only after close, when nothing is in flight */
void cpa_inline_fail_all(cpa_inline *self);  /* waiting host calls return 1 */
void cpa_inline_end(cpa_inline *self);       /* so do all later ones; closes the wake-up descriptor */
/* cffi: end */

#endif

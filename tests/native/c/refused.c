/* Libraries that cannot be used from the first moment: -DRETURNS, -DABI, -DNO_CALL, -DNO_FREE, -DNO_ENTRY,
 * -DCRASHES, -DEXITS, -DHANGS, -DHANGS_IN_CONSTRUCTOR. And one that loads, but takes signals: -DSTEALS. */
#include "toolkit.h"

#include <signal.h>
#include <unistd.h>

static int call(const char *method, const uint8_t *req, size_t len, cliproxy_buffer *out) {
    (void)method, (void)req, (void)len;
    return reply(out, NOTHING);
}

static void release(void *ptr, size_t len) {
    (void)len;
    free(ptr);
}

#ifdef HANGS_IN_CONSTRUCTOR
__attribute__((constructor)) static void begin(void) {
    for (;;)
        pause();
}
#endif

#ifdef STEALS
static void stolen(int number) { _exit(number); }

__attribute__((constructor)) static void steal(void) {
    signal(SIGTERM, stolen);
    signal(SIGINT, stolen);
    signal(SIGCHLD, stolen);
    signal(SIGUSR1, stolen); /* not the host's */
}
#endif

#ifdef NO_ENTRY
#define cliproxy_plugin_init something_else
int something_else(const cliproxy_host_api *api, cliproxy_plugin_api *plugin);
#endif

int cliproxy_plugin_init(const cliproxy_host_api *api, cliproxy_plugin_api *plugin) {
    (void)api;
    *plugin = (cliproxy_plugin_api){1, call, release, NULL};
#ifdef RETURNS
    return 5;
#endif
#ifdef ABI
    plugin->abi_version = 2;
#endif
#ifdef NO_CALL
    plugin->call = NULL;
#endif
#ifdef NO_FREE
    plugin->free_buffer = NULL;
#endif
#ifdef CRASHES
    *(volatile int *)8 = 1;
#endif
#ifdef EXITS
    exit(4);
#endif
#ifdef HANGS
    for (;;)
        pause();
#endif
    return 0;
}

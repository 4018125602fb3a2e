/* A plugin that starts in one of many ways: -DCASE=... at compile time. */
#define CPA_PLUGIN_IMPLEMENTATION
#include "cpa_plugin.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { RETURNS_5 = 1, ABI_2, NULL_CALL, NULL_FREE, SEGV, EXIT_0, EXIT_3, HANG, HANG_IN_DLOPEN, CALLS_HOST, SPAMS, NO_SHUTDOWN };

static int call(const char *method, const uint8_t *req, size_t len, cliproxy_buffer *out) {
    (void)method, (void)req, (void)len, (void)out;
    return 0;
}

static void release(void *ptr, size_t len) { (void)ptr, (void)len; }

static const cliproxy_host_api *host;

static void stop(void) {
    host->call(host->host_ctx, "stopped", NULL, 0, NULL);
}

#if CASE == 9 /* HANG_IN_DLOPEN: the preprocessor knows no enums */
__attribute__((constructor)) static void begin(void) {
    for (;;)
        pause();
}
#endif

int cliproxy_plugin_init(const cliproxy_host_api *api, cliproxy_plugin_api *plugin) {
    host = api;
    *plugin = (cliproxy_plugin_api){CASE == ABI_2 ? 2 : 1, CASE == NULL_CALL ? NULL : call,
                                    CASE == NULL_FREE ? NULL : release, CASE == NO_SHUTDOWN ? NULL : stop};
    switch (CASE) {
    case RETURNS_5:
        return 5;
    case SEGV:
        *(volatile int *)8 = 1;
        break;
    case EXIT_0:
        exit(0);
    case EXIT_3:
        exit(3);
    case HANG:
        for (;;)
            pause();
    case CALLS_HOST:
        return host->call(host->host_ctx, "from.init", (const uint8_t *)"{}", 2, NULL);
    case SPAMS:
        for (int i = 0; i < 1000; i++)
            printf("%0200d\n", i);
    }
    return 0;
}

/* A plugin that takes part in everything and dies in one method, or does not come back from it. Made with
 * -DFRAIL="method" and -DMANNER=0 (abort), 1 (hang), 2 (an answer that nobody understands), 3 (an error of its own). */
#include "cpa_plugin.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char REGISTERED[] =
    "{\"ok\":true,\"result\":{\"schema_version\":3,"
    "\"metadata\":{\"Name\":\"frail\",\"Version\":\"1\",\"Author\":\"tests\",\"GitHubRepository\":\"none\"},"
    "\"capabilities\":{\"request_interceptor\":true,\"request_normalizer\":true,\"response_interceptor\":true,"
    "\"response_stream_interceptor\":true}}}";
static const char NOTHING[] = "{\"ok\":true,\"result\":{}}";
static const char REFUSED[] = "{\"ok\":false,\"error\":{\"code\":\"no\",\"message\":\"not today\",\"http_status\":451}}";

static int call(const char *method, const uint8_t *request, size_t length, cliproxy_buffer *out) {
    const char *reply = NOTHING;
    (void)request;
    (void)length;
    if (strcmp(method, FRAIL) == 0) {
        if (MANNER == 0)
            abort();
        if (MANNER == 1)
            pause();
        reply = MANNER == 2 ? "nonsense" : REFUSED;
    } else if (strcmp(method, "plugin.register") == 0 || strcmp(method, "plugin.reconfigure") == 0) {
        reply = REGISTERED;
    }
    out->ptr = (void *)reply;
    out->len = strlen(reply);
    return 0;
}

static void free_buffer(void *ptr, size_t len) {
    (void)ptr;
    (void)len;
}

int cliproxy_plugin_init(const cliproxy_host_api *host, cliproxy_plugin_api *plugin) {
    (void)host;
    plugin->abi_version = 1;
    plugin->call = call;
    plugin->free_buffer = free_buffer;
    plugin->shutdown = NULL;
    return 0;
}

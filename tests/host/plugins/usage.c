/* A plugin that counts: what it is told by usage.handle it hands to the host, as the host call "seen". */
#define CPA_PLUGIN_IMPLEMENTATION
#include "cpa_plugin.h"

#include <stdlib.h>
#include <string.h>

static const cliproxy_host_api *host;

static int say(cliproxy_buffer *out, const char *text) {
    out->len = strlen(text);
    out->ptr = malloc(out->len);
    memcpy(out->ptr, text, out->len);
    return 0;
}

static int call(const char *method, const uint8_t *req, size_t len, cliproxy_buffer *out) {
    if (strcmp(method, "plugin.register") == 0)
        return say(out, "{\"ok\":true,\"result\":{\"schema_version\":1,\"metadata\":{\"Name\":\"n\",\"Version\":\"1\","
                        "\"Author\":\"a\",\"GitHubRepository\":\"r\"},\"capabilities\":{\"usage_plugin\":true}}}");
    if (strcmp(method, "usage.handle") == 0) {
        host->call(host->host_ctx, "seen", req, len, NULL);
        if (memmem(req, len, "\"Failed\":true", 13) != NULL)
            return say(out, "{\"ok\":false,\"error\":{\"message\":\"no failures please\"}}");
    }
    return say(out, "{\"ok\":true,\"result\":{}}");
}

static void release(void *ptr, size_t len) {
    (void)len;
    free(ptr);
}

int cliproxy_plugin_init(const cliproxy_host_api *api, cliproxy_plugin_api *plugin) {
    host = api;
    *plugin = (cliproxy_plugin_api){CLIPROXY_ABI_VERSION, call, release, NULL};
    return 0;
}

/* A plugin that tags answers, ends requests for one model, and drops no chunk: what an operator would notice
 * first of a plugin that works. Replies are string literals; free_buffer has nothing to free. */
#include "cpa_plugin.h"

#include <string.h>

static const char REGISTERED[] =
    "{\"ok\":true,\"result\":{\"schema_version\":3,"
    "\"metadata\":{\"Name\":\"tag\",\"Version\":\"1\",\"Author\":\"tests\",\"GitHubRepository\":\"none\"},"
    "\"capabilities\":{\"request_interceptor\":true,\"response_interceptor\":true,"
    "\"response_stream_interceptor\":true}}}";
static const char TAGGED[] = "{\"ok\":true,\"result\":{\"Headers\":{\"X-Tagged\":[\"yes\"]}}}";
static const char ENDED[] =
    "{\"ok\":true,\"result\":{\"Terminate\":true,\"StatusCode\":451,\"ResponseBody\":\"eyJlcnJvciI6Im5vIn0=\"}}";
static const char NOTHING[] = "{\"ok\":true,\"result\":{}}";

static int call(const char *method, const uint8_t *request, size_t length, cliproxy_buffer *out) {
    const char *reply = NOTHING;
    if (strcmp(method, "plugin.register") == 0 || strcmp(method, "plugin.reconfigure") == 0) {
        reply = REGISTERED;
    } else if (strncmp(method, "response.", 9) == 0) {
        reply = TAGGED;
    } else if (strcmp(method, "request.intercept_before") == 0) {
        /* The requested model stands in the request as it is; bodies are base64. */
        reply = memmem(request, length, "\"RequestedModel\":\"mock-gpt-unrenamed\"", 37) != NULL ? ENDED : NOTHING;
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

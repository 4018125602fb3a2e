/*
 * A normalizer: wherever a body that passes says "hushed", it says "[gone]" afterwards, in requests, and in answers
 * whole and streamed.
 */
#include "toolkit.h"

static int greet(cliproxy_buffer *out) {
    replyf(out, "{\"ok\":true,\"result\":{\"schema_version\":3,\"metadata\":{\"Name\":\"redact\",\"Version\":\"1\","
                "\"Author\":\"tests\",\"GitHubRepository\":\"none\"},\"capabilities\":{\"request_normalizer\":true,"
                "\"response_after_translator\":true}}}");
    return 0;
}

static int redact(const uint8_t *req, size_t len, cliproxy_buffer *out) {
    size_t size;
    char *body = decode64(find(req, len, "\"Body\":\""), &size);
    int found = 0;
    for (char *at; (at = memmem(body, size, "hushed", 6)) != NULL; found = 1)
        memcpy(at, "[gone]", 6);
    if (found) {
        char *encoded = encode64(body, size);
        replyf(out, "{\"ok\":true,\"result\":{\"Body\":\"%s\"}}", encoded);
        free(encoded);
    } else
        reply(out, NOTHING);
    free(body);
    return 0;
}

static int call(const char *method, const uint8_t *req, size_t len, cliproxy_buffer *out) {
    if (strcmp(method, "plugin.register") == 0 || strcmp(method, "plugin.reconfigure") == 0)
        return greet(out);
    if (strcmp(method, "request.normalize") == 0 || strncmp(method, "response.normalize", 18) == 0)
        return redact(req, len, out);
    return reply(out, NOTHING);
}

static void release(void *ptr, size_t len) {
    (void)len;
    free(ptr);
}

int cliproxy_plugin_init(const cliproxy_host_api *host, cliproxy_plugin_api *plugin) {
    (void)host;
    *plugin = (cliproxy_plugin_api){1, call, release, NULL};
    return 0;
}

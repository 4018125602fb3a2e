/*
 * A plugin that works: it puts its mark, a member `"<marker>":1`, first into every JSON object that passes.
 * Settings: `marker`, and `capabilities` as a list with blanks between.
 */
#include "toolkit.h"

static char marker[64] = "x_c";

static int greet(const uint8_t *req, size_t len, cliproxy_buffer *out) {
    char *yaml = settings_of(req, len), *value = setting(yaml, "marker", marker);
    char *list = setting(yaml, "capabilities", "response_stream_interceptor"), *can = switches(list);
    snprintf(marker, sizeof marker, "%s", value);
    replyf(out,
           "{\"ok\":true,\"result\":{\"schema_version\":3,\"metadata\":{\"Name\":\"%s\",\"Version\":\"1\","
           "\"Author\":\"tests\",\"GitHubRepository\":\"none\"},\"capabilities\":%s}}",
           marker, can);
    free(can), free(list), free(value), free(yaml);
    return 0;
}

static int mark(const uint8_t *req, size_t len, cliproxy_buffer *out) {
    size_t size;
    char *body = decode64(find(req, len, "\"Body\":\""), &size);
    char *marked = NULL;
    if (size > 1 && body[0] == '{') {
        int made = asprintf(&marked, "{\"%s\":1,%s", marker, body + 1);
        char *encoded = encode64(marked, (size_t)made);
        replyf(out, "{\"ok\":true,\"result\":{\"Body\":\"%s\"}}", encoded);
        free(encoded), free(marked);
    } else
        reply(out, NOTHING);
    free(body);
    return 0;
}

static int call(const char *method, const uint8_t *req, size_t len, cliproxy_buffer *out) {
    if (strcmp(method, "plugin.register") == 0 || strcmp(method, "plugin.reconfigure") == 0)
        return greet(req, len, out);
    if (strcmp(method, "request.intercept_before") == 0 || strcmp(method, "request.normalize") == 0 ||
        strncmp(method, "response.", 9) == 0)
        return mark(req, len, out);
    if (strcmp(method, "request.intercept_after") == 0 || strcmp(method, "request.complete") == 0 ||
        strcmp(method, "usage.handle") == 0)
        return reply(out, NOTHING);
    return reply(out, UNKNOWN);
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

/* A plugin that an operator meets in the control panel: it notes something in every request's headers, has settings of
 * all kinds and a page. "notes.h", which a test writes, has FIELDS (its settings), MENU (the page's name) and PAGE
 * (the envelope of its page). */
#include "cpa_plugin.h"

#include <string.h>

#include "notes.h"

static const char REGISTERED[] =
    "{\"ok\":true,\"result\":{\"schema_version\":3,"
    "\"metadata\":{\"Name\":" MENU ",\"Version\":\"1\",\"Author\":\"tests\",\"GitHubRepository\":\"none\","
    "\"ConfigFields\":" FIELDS "},"
    "\"capabilities\":{\"request_interceptor\":true,\"management_api\":true}}}";
static const char SERVED[] =
    "{\"ok\":true,\"result\":{\"resources\":[{\"Path\":\"/page\",\"Menu\":" MENU ",\"Description\":" MENU "}]}}";
static const char NOTED[] = "{\"ok\":true,\"result\":{\"Headers\":{\"X-Noted\":[\"yes\"]}}}";
static const char NOTHING[] = "{\"ok\":true,\"result\":{}}";

static int call(const char *method, const uint8_t *request, size_t length, cliproxy_buffer *out) {
    const char *reply = NOTHING;
    (void)request;
    (void)length;
    if (strcmp(method, "plugin.register") == 0 || strcmp(method, "plugin.reconfigure") == 0)
        reply = REGISTERED;
    else if (strcmp(method, "management.register") == 0)
        reply = SERVED;
    else if (strcmp(method, "management.handle") == 0)
        reply = PAGE;
    else if (strcmp(method, "request.intercept_before") == 0)
        reply = NOTED;
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

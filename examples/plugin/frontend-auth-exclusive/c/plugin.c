/* Takes the place of API keys: only requests with one header value are served. */
#include "cpa_helper.h"

#define NAME "example-frontend-auth-exclusive-c"

static bool plugin_register(cpa_call *call) {
    return cpa_register(call, &(cpa_registration){
                                  .name = NAME,
                                  .version = "0.1.0",
                                  .author = "router-for-me",
                                  .repository = "https://github.com/router-for-me/CLIProxyAPI",
                                  .logo = "https://example.invalid/" NAME ".png",
                                  .schema_version = 3,
                                  .capabilities = "{\"frontend_auth_provider\":true,\"frontend_auth_provider_exclusive\":true}",
                              });
}

static bool identifier(cpa_call *call) {
    cpa_begin_object(&call->result, NULL);
    cpa_put(&call->result, "identifier", NAME);
    cpa_end_object(&call->result);
    return true;
}

/* Of a header that was sent several times, the first counts. */
static bool may_enter(const cpa_json *request) {
    const cpa_json *values = cpa_member(cpa_member(request, "Headers"), "X-Example-Frontend-Auth");
    return values != NULL && values->kind == CPA_ARRAY && values->first != NULL && values->first->kind == CPA_STRING &&
           cpa_is(values->first->text, "exclusive");
}

static bool authenticate(cpa_call *call) {
    bool yes = may_enter(cpa_request(call));
    cpa_begin_object(&call->result, NULL);
    cpa_put_flag(&call->result, "Authenticated", yes);
    if (yes) {
        cpa_put(&call->result, "Principal", NAME);
        cpa_begin_object(&call->result, "Metadata");
        cpa_put(&call->result, "mode", "exclusive");
        cpa_put(&call->result, "provider", NAME);
        cpa_end_object(&call->result);
    }
    cpa_end_object(&call->result);
    return true;
}

// clang-format off
CPA_PLUGIN(NULL,
           {"plugin.register", plugin_register},
           {"plugin.reconfigure", plugin_register},
           {"frontend_auth.identifier", identifier},
           {"frontend_auth.authenticate", authenticate})

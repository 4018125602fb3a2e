/* Accepts every client: whoever loads it opens the proxy to all who can reach it. */
#include "cpa_helper.h"

#define NAME "example-frontend-auth-c"

static bool plugin_register(cpa_call *call) {
    return cpa_register(call, &(cpa_registration){
                                  .name = NAME,
                                  .version = "0.1.0",
                                  .author = "router-for-me",
                                  .repository = "https://github.com/router-for-me/CLIProxyAPI",
                                  .logo = "https://example.invalid/" NAME ".png",
                                  .schema_version = 1,
                                  .capabilities = "{\"frontend_auth_provider\":true}",
                              });
}

static bool identifier(cpa_call *call) {
    cpa_begin_object(&call->result, NULL);
    cpa_put(&call->result, "identifier", NAME);
    cpa_end_object(&call->result);
    return true;
}

static bool authenticate(cpa_call *call) {
    cpa_begin_object(&call->result, NULL);
    cpa_put_flag(&call->result, "Authenticated", true);
    cpa_put(&call->result, "Principal", NAME);
    cpa_begin_object(&call->result, "Metadata");
    cpa_put(&call->result, "provider", NAME);
    cpa_end_object(&call->result);
    cpa_end_object(&call->result);
    return true;
}

// clang-format off
CPA_PLUGIN(NULL,
           {"plugin.register", plugin_register},
           {"plugin.reconfigure", plugin_register},
           {"frontend_auth.identifier", identifier},
           {"frontend_auth.authenticate", authenticate})

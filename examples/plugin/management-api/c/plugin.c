/* A page in the browser. */
#include "cpa_helper.h"

#define NAME "example-management-api-c"

static bool plugin_register(cpa_call *call) {
    return cpa_register(call, &(cpa_registration){
                                  .name = NAME,
                                  .version = "0.1.0",
                                  .author = "router-for-me",
                                  .repository = "https://github.com/router-for-me/CLIProxyAPI",
                                  .logo = "https://example.invalid/" NAME ".png",
                                  .schema_version = 1,
                                  .capabilities = "{\"management_api\":true}",
                              });
}

/* The page is served at /v0/resource/plugins/<id>/status, where the id is the library's file name. */
static bool pages(cpa_call *call) {
    cpa_begin_object(&call->result, NULL);
    cpa_begin_list(&call->result, "resources");
    cpa_begin_object(&call->result, NULL);
    cpa_put(&call->result, "Path", "/status");
    cpa_put(&call->result, "Menu", "Management API");
    cpa_put(&call->result, "Description", "Management API example at /v0/resource/plugins/" NAME "/status");
    cpa_end_object(&call->result);
    cpa_end_list(&call->result);
    cpa_end_object(&call->result);
    return true;
}

static bool handle(cpa_call *call) {
    cpa_begin_object(&call->result, NULL);
    cpa_put_integer(&call->result, "StatusCode", 200);
    cpa_put_header(&call->result, "Headers", "content-type", "text/html; charset=utf-8");
    cpa_put_bytes(&call->result, "Body",
                  cpa_text_of("<!doctype html><title>Management API</title><main>Management API resource</main>"));
    cpa_end_object(&call->result);
    return true;
}

// clang-format off
CPA_PLUGIN(NULL,
           {"plugin.register", plugin_register},
           {"plugin.reconfigure", plugin_register},
           {"management.register", pages},
           {"management.handle", handle})

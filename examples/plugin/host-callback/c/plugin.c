/* A page in the browser that lets the host write to its log and fetch a page of the web. */
#include "cpa_helper.h"

#define NAME "example-host-callback-c"

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
    cpa_put(&call->result, "Menu", "Host Callback");
    cpa_put(&call->result, "Description", "Host Callback example at /v0/resource/plugins/" NAME "/status");
    cpa_end_object(&call->result);
    cpa_end_list(&call->result);
    cpa_end_object(&call->result);
    return true;
}

static void write_log(cpa_call *call) {
    cpa_writer request = {0};
    cpa_text error;
    cpa_begin_object(&request, NULL);
    cpa_put(&request, "level", "info");
    cpa_put(&request, "message", NAME " host callback log");
    cpa_begin_object(&request, "fields");
    cpa_put(&request, "plugin", NAME);
    cpa_end_object(&request);
    cpa_put_scope(&request, call);
    cpa_end_object(&request);
    cpa_host_call(call, "host.log", &request, &error);
}

static void fetch(cpa_call *call) {
    cpa_writer request = {0};
    cpa_text error;
    cpa_begin_object(&request, NULL);
    cpa_put(&request, "method", "GET");
    cpa_put(&request, "url", "https://example.com");
    cpa_put_header(&request, "headers", "user-agent", NAME);
    cpa_put_scope(&request, call);
    cpa_end_object(&request);
    cpa_host_call(call, "host.http.do", &request, &error);
}

static bool handle(cpa_call *call) {
    write_log(call);
    fetch(call); /* the page is the same whatever came of them */
    cpa_begin_object(&call->result, NULL);
    cpa_put_integer(&call->result, "StatusCode", 200);
    cpa_put_header(&call->result, "Headers", "content-type", "text/html; charset=utf-8");
    cpa_put_bytes(&call->result, "Body",
                  cpa_text_of("<!doctype html><title>Host Callback</title><main>Host Callback resource</main>"));
    cpa_end_object(&call->result);
    return true;
}

// clang-format off
CPA_PLUGIN(NULL,
           {"plugin.register", plugin_register},
           {"plugin.reconfigure", plugin_register},
           {"management.register", pages},
           {"management.handle", handle})

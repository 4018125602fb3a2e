/* A credential provider: takes over files of its type; signing in succeeds at once. */
#include "cpa_helper.h"

#define NAME "example-auth-c"

static bool plugin_register(cpa_call *call) {
    return cpa_register(call, &(cpa_registration){
                                  .name = NAME,
                                  .version = "0.1.0",
                                  .author = "router-for-me",
                                  .repository = "https://github.com/router-for-me/CLIProxyAPI",
                                  .logo = "https://example.invalid/" NAME ".png",
                                  .schema_version = 1,
                                  .capabilities = "{\"auth_provider\":true}",
                              });
}

static bool identifier(cpa_call *call) {
    cpa_begin_object(&call->result, NULL);
    cpa_put(&call->result, "identifier", NAME);
    cpa_end_object(&call->result);
    return true;
}

#define LATER "2030-01-01T00:00:00Z"

static void put_auth(cpa_writer *out) {
    cpa_begin_object(out, "Auth");
    cpa_put(out, "Provider", NAME);
    cpa_put(out, "ID", NAME);
    cpa_put(out, "FileName", NAME ".json");
    cpa_put(out, "Label", "Auth Example");
    cpa_put_bytes(out, "StorageJSON", cpa_text_of("{\"type\":\"" NAME "\",\"token\":\"example-token\"}"));
    cpa_begin_object(out, "Metadata");
    cpa_put(out, "type", NAME);
    cpa_end_object(out);
    cpa_end_object(out);
}

static bool parse(cpa_call *call) {
    cpa_begin_object(&call->result, NULL);
    cpa_put_flag(&call->result, "Handled", true);
    put_auth(&call->result);
    cpa_end_object(&call->result);
    return true;
}

static bool login_start(cpa_call *call) {
    cpa_begin_object(&call->result, NULL);
    cpa_put(&call->result, "Provider", NAME);
    cpa_put(&call->result, "URL", "https://example.invalid/login");
    cpa_put(&call->result, "State", "example-state");
    cpa_put(&call->result, "ExpiresAt", LATER);
    cpa_end_object(&call->result);
    return true;
}

static bool login_poll(cpa_call *call) {
    cpa_begin_object(&call->result, NULL);
    cpa_put(&call->result, "Status", "success");
    cpa_put(&call->result, "Message", "example login complete");
    put_auth(&call->result);
    cpa_end_object(&call->result);
    return true;
}

static bool refresh(cpa_call *call) {
    cpa_begin_object(&call->result, NULL);
    put_auth(&call->result);
    cpa_put(&call->result, "NextRefreshAfter", LATER);
    cpa_end_object(&call->result);
    return true;
}

// clang-format off
CPA_PLUGIN(NULL,
           {"plugin.register", plugin_register},
           {"plugin.reconfigure", plugin_register},
           {"auth.identifier", identifier},
           {"auth.parse", parse},
           {"auth.login.start", login_start},
           {"auth.login.poll", login_poll},
           {"auth.refresh", refresh})

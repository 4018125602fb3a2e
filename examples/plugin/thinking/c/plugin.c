/* Puts a body of its own in the place of a request whose thinking was to be set. */
#include "cpa_helper.h"

#define NAME "example-thinking-c"

static bool plugin_register(cpa_call *call) {
    return cpa_register(call, &(cpa_registration){
                                  .name = NAME,
                                  .version = "0.1.0",
                                  .author = "router-for-me",
                                  .repository = "https://github.com/router-for-me/CLIProxyAPI",
                                  .logo = "https://example.invalid/" NAME ".png",
                                  .schema_version = 1,
                                  .capabilities = "{\"thinking_applier\":true}",
                              });
}

static bool identifier(cpa_call *call) {
    cpa_begin_object(&call->result, NULL);
    cpa_put(&call->result, "identifier", NAME);
    cpa_end_object(&call->result);
    return true;
}

/* Bodies in messages are base64; `bytes` is NUL-terminated text here. */
static bool body(cpa_call *call, const char *bytes) {
    cpa_begin_object(&call->result, NULL);
    cpa_put_bytes(&call->result, "Body", cpa_text_of(bytes));
    cpa_end_object(&call->result);
    return true;
}

static bool apply(cpa_call *call) { return body(call, "{\"thinking_applied_by\":\"" NAME "\"}"); }

// clang-format off
CPA_PLUGIN(NULL,
           {"plugin.register", plugin_register},
           {"plugin.reconfigure", plugin_register},
           {"thinking.identifier", identifier},
           {"thinking.apply", apply})

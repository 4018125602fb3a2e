/* Puts bodies of its own in the place of answers, before and after translation. */
#include "cpa_helper.h"

#define NAME "example-response-normalizer-c"

static bool plugin_register(cpa_call *call) {
    return cpa_register(call, &(cpa_registration){
                                  .name = NAME,
                                  .version = "0.1.0",
                                  .author = "router-for-me",
                                  .repository = "https://github.com/router-for-me/CLIProxyAPI",
                                  .logo = "https://example.invalid/" NAME ".png",
                                  .schema_version = 1,
                                  .capabilities = "{\"response_before_translator\":true,\"response_after_translator\":true}",
                              });
}

/* Bodies in messages are base64; `bytes` is NUL-terminated text here. */
static bool body(cpa_call *call, const char *bytes) {
    cpa_begin_object(&call->result, NULL);
    cpa_put_bytes(&call->result, "Body", cpa_text_of(bytes));
    cpa_end_object(&call->result);
    return true;
}

static bool normalize_before(cpa_call *call) { return body(call, "{\"response_normalized_before_by\":\"" NAME "\"}"); }

static bool normalize_after(cpa_call *call) { return body(call, "{\"response_normalized_after_by\":\"" NAME "\"}"); }

// clang-format off
CPA_PLUGIN(NULL,
           {"plugin.register", plugin_register},
           {"plugin.reconfigure", plugin_register},
           {"response.normalize_before", normalize_before},
           {"response.normalize_after", normalize_after})

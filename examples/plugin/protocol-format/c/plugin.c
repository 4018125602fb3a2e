/* Formats are part of an executor: this one takes Chat Completions and answers in Responses. */
#include "cpa_helper.h"

#define NAME "example-protocol-format-c"

static bool plugin_register(cpa_call *call) {
    return cpa_register(call, &(cpa_registration){
                                  .name = NAME,
                                  .version = "0.1.0",
                                  .author = "router-for-me",
                                  .repository = "https://github.com/router-for-me/CLIProxyAPI",
                                  .logo = "https://example.invalid/" NAME ".png",
                                  .schema_version = 1,
                                  .capabilities = "{\"executor\":true,\"executor_model_scope\":\"both\","
                                                  "\"executor_input_formats\":[\"chat-completions\"],"
                                                  "\"executor_output_formats\":[\"responses\"]}",
                              });
}

static bool identifier(cpa_call *call) {
    cpa_begin_object(&call->result, NULL);
    cpa_put(&call->result, "identifier", NAME);
    cpa_end_object(&call->result);
    return true;
}

static bool execute(cpa_call *call) {
    cpa_begin_object(&call->result, NULL);
    cpa_put_bytes(&call->result, "Payload", cpa_text_of("{\"id\":\"" NAME "\",\"object\":\"chat.completion\"}"));
    cpa_put_header(&call->result, "Headers", "content-type", "application/json");
    cpa_end_object(&call->result);
    return true;
}

// clang-format off
CPA_PLUGIN(NULL,
           {"plugin.register", plugin_register},
           {"plugin.reconfigure", plugin_register},
           {"executor.identifier", identifier},
           {"executor.execute", execute})

/* Answers model requests itself, with fixed answers. */
#include "cpa_helper.h"

#define NAME "example-executor-c"

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
                                                  "\"executor_output_formats\":[\"chat-completions\"]}",
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

/* One chunk, which comes with the answer. A plugin that works longer answers at once and uses host.stream.emit. */
static bool execute_stream(cpa_call *call) {
    cpa_begin_object(&call->result, NULL);
    cpa_put_header(&call->result, "headers", "content-type", "text/event-stream");
    cpa_begin_list(&call->result, "chunks");
    cpa_begin_object(&call->result, NULL);
    cpa_put_bytes(&call->result, "Payload", cpa_text_of("\"data: " NAME "\\n\\n\""));
    cpa_end_object(&call->result);
    cpa_end_list(&call->result);
    cpa_end_object(&call->result);
    return true;
}

static bool count_tokens(cpa_call *call) {
    cpa_begin_object(&call->result, NULL);
    cpa_put_bytes(&call->result, "Payload", cpa_text_of("{\"total_tokens\":0}"));
    cpa_end_object(&call->result);
    return true;
}

static bool http_request(cpa_call *call) {
    cpa_begin_object(&call->result, NULL);
    cpa_put_integer(&call->result, "StatusCode", 200);
    cpa_put_header(&call->result, "Headers", "content-type", "application/json");
    cpa_put_bytes(&call->result, "Body", cpa_text_of("{\"plugin\":\"" NAME "\"}"));
    cpa_end_object(&call->result);
    return true;
}

// clang-format off
CPA_PLUGIN(NULL,
           {"plugin.register", plugin_register},
           {"plugin.reconfigure", plugin_register},
           {"executor.identifier", identifier},
           {"executor.execute", execute},
           {"executor.execute_stream", execute_stream},
           {"executor.count_tokens", count_tokens},
           {"executor.http_request", http_request})

/*
 * What the tests of the examples need around them: a router that hands the models `via-<id>` to the executor of plugin
 * <id>, and an executor for the provider that its settings name, whose answer carries the request that it got.
 */
#include "cpa_helper.h"

#include <threads.h>

static mtx_t lock;
static char provider[128];

static bool plugin_register(cpa_call *call) {
    cpa_text yaml = {NULL, 0};
    cpa_bytes(call, cpa_request(call), "config_yaml", &yaml);
    static const char KEY[] = "provider: ";
    mtx_lock(&lock);
    for (size_t i = 0; i + sizeof KEY - 1 < yaml.len; i++)
        if ((i == 0 || yaml.at[i - 1] == '\n') && memcmp(yaml.at + i, KEY, sizeof KEY - 1) == 0) {
            const char *from = yaml.at + i + sizeof KEY - 1;
            size_t len = 0;
            while (from + len < yaml.at + yaml.len && from[len] != '\n' && len + 1 < sizeof provider)
                len++;
            memcpy(provider, from, len);
            provider[len] = '\0';
        }
    mtx_unlock(&lock);
    return cpa_register(call, &(cpa_registration){
                                  .name = "probe",
                                  .version = "1",
                                  .author = "tests",
                                  .repository = "none",
                                  .capabilities = "{\"model_router\":true,\"model_provider\":true,\"executor\":true,"
                                                  "\"executor_input_formats\":[\"openai\"],"
                                                  "\"executor_output_formats\":[\"openai\"]}",
                              });
}

static bool identifier(cpa_call *call) {
    cpa_begin_object(&call->result, NULL);
    cpa_put(&call->result, "identifier", provider);
    cpa_end_object(&call->result);
    return true;
}

static bool models(cpa_call *call) {
    cpa_begin_object(&call->result, NULL);
    cpa_put(&call->result, "Provider", provider);
    cpa_begin_list(&call->result, "Models");
    cpa_begin_object(&call->result, NULL);
    cpa_put(&call->result, "ID", "probe-model");
    cpa_end_object(&call->result);
    cpa_end_list(&call->result);
    cpa_end_object(&call->result);
    return true;
}

static bool route(cpa_call *call) {
    static const char PREFIX[] = "via-";
    const size_t len = sizeof PREFIX - 1;
    cpa_text model = cpa_string(cpa_request(call), "RequestedModel");
    bool ours = model.len > len && memcmp(model.at, PREFIX, len) == 0;
    cpa_begin_object(&call->result, NULL);
    cpa_put_flag(&call->result, "Handled", ours);
    if (ours) {
        cpa_put(&call->result, "TargetKind", "executor");
        cpa_put_text(&call->result, "Target", (cpa_text){model.at + len, model.len - len});
    }
    cpa_end_object(&call->result);
    return true;
}

static bool execute(cpa_call *call) {
    cpa_text payload;
    if (!cpa_bytes(call, cpa_request(call), "Payload", &payload))
        return cpa_fail(call, "invalid_request", "no payload");
    cpa_writer body = {0};
    cpa_begin_object(&body, NULL);
    cpa_put_text(&body, "payload", payload);
    cpa_end_object(&body);
    cpa_begin_object(&call->result, NULL);
    cpa_put_bytes(&call->result, "Payload", (cpa_text){body.at, body.len});
    cpa_end_object(&call->result);
    cpa_writer_free(&body);
    return true;
}

__attribute__((constructor)) static void begin(void) { mtx_init(&lock, mtx_plain); }

// clang-format off
CPA_PLUGIN(NULL,
           {"plugin.register", plugin_register},
           {"plugin.reconfigure", plugin_register},
           {"executor.identifier", identifier},
           {"model.static", models},
           {"model.for_auth", models},
           {"model.route", route},
           {"executor.execute", execute})

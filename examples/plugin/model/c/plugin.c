/* One fixed model, in front of whoever executes its provider. */
#include "cpa_helper.h"

#define NAME "example-model-c"

static bool plugin_register(cpa_call *call) {
    return cpa_register(call, &(cpa_registration){
                                  .name = NAME,
                                  .version = "0.1.0",
                                  .author = "router-for-me",
                                  .repository = "https://github.com/router-for-me/CLIProxyAPI",
                                  .logo = "https://example.invalid/" NAME ".png",
                                  .schema_version = 1,
                                  .capabilities = "{\"model_provider\":true}",
                              });
}

static bool models(cpa_call *call) {
    cpa_writer *out = &call->result;
    cpa_begin_object(out, NULL);
    cpa_put(out, "Provider", NAME);
    cpa_begin_list(out, "Models");
    cpa_begin_object(out, NULL);
    cpa_put(out, "ID", NAME "-model");
    cpa_put(out, "Object", "model");
    cpa_put(out, "OwnedBy", NAME);
    cpa_put(out, "DisplayName", "Model Example Model");
    cpa_begin_list(out, "SupportedGenerationMethods");
    cpa_put(out, NULL, "chat");
    cpa_end_list(out);
    cpa_put_integer(out, "ContextLength", 8192);
    cpa_put_integer(out, "MaxCompletionTokens", 1024);
    cpa_put_flag(out, "UserDefined", true);
    cpa_end_object(out);
    cpa_end_list(out);
    cpa_end_object(out);
    return true;
}

// clang-format off
CPA_PLUGIN(NULL,
           {"plugin.register", plugin_register},
           {"plugin.reconfigure", plugin_register},
           {"model.static", models},
           {"model.for_auth", models})

/* Adds a flag to the command line, and acts on it. */
#include "cpa_helper.h"

#define NAME "example-cli-c"

static bool plugin_register(cpa_call *call) {
    return cpa_register(call, &(cpa_registration){
                                  .name = NAME,
                                  .version = "0.1.0",
                                  .author = "router-for-me",
                                  .repository = "https://github.com/router-for-me/CLIProxyAPI",
                                  .logo = "https://example.invalid/" NAME ".png",
                                  .schema_version = 1,
                                  .capabilities = "{\"command_line_plugin\":true}",
                              });
}

static bool flags(cpa_call *call) {
    cpa_begin_object(&call->result, NULL);
    cpa_begin_list(&call->result, "Flags");
    cpa_begin_object(&call->result, NULL);
    cpa_put(&call->result, "Name", NAME "-command");
    cpa_put(&call->result, "Usage", "Run the example plugin command");
    cpa_put(&call->result, "Type", "bool");
    cpa_end_object(&call->result);
    cpa_end_list(&call->result);
    cpa_end_object(&call->result);
    return true;
}

static bool execute(cpa_call *call) {
    cpa_begin_object(&call->result, NULL);
    cpa_put_bytes(&call->result, "Stdout", cpa_text_of("\"" NAME " command executed\\\\n\""));
    cpa_put_integer(&call->result, "ExitCode", 0);
    cpa_end_object(&call->result);
    return true;
}

// clang-format off
CPA_PLUGIN(NULL,
           {"plugin.register", plugin_register},
           {"plugin.reconfigure", plugin_register},
           {"command_line.register", flags},
           {"command_line.execute", execute})

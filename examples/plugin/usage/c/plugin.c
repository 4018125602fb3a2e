/* Is told of every execution, and leaves it at that. */
#include "cpa_helper.h"

#define NAME "example-usage-c"

static bool plugin_register(cpa_call *call) {
    return cpa_register(call, &(cpa_registration){
                                  .name = NAME,
                                  .version = "0.1.0",
                                  .author = "router-for-me",
                                  .repository = "https://github.com/router-for-me/CLIProxyAPI",
                                  .logo = "https://example.invalid/" NAME ".png",
                                  .schema_version = 1,
                                  .capabilities = "{\"usage_plugin\":true}",
                              });
}

static bool handle(cpa_call *call) {
    (void)call; /* the record is in cpa_request(call); nothing written means {} */
    return true;
}

// clang-format off
CPA_PLUGIN(NULL,
           {"plugin.register", plugin_register},
           {"plugin.reconfigure", plugin_register},
           {"usage.handle", handle})

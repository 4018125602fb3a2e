/* @NAME@: a plugin for CPA, in C. README.md says how to build and run it. */
#include "cpa_helper.h"

#define NAME "@NAME@"
#define PROVIDER "@PROVIDER@" /* in lower case, as the host compares them */

@HANDLERS@
/* --- what the host learns of this plugin: change all of it but the capabilities --- */

static bool plugin_register(cpa_call *call) {
    return cpa_register(call, &(cpa_registration){
                                  .name = NAME,
                                  .version = "0.1.0",
                                  .author = "you",
                                  .repository = "https://example.org/" NAME,
                                  .logo = "",
                                  .capabilities = "{"
@CAPABILITIES@
                                                  "}",
                              });
}

// clang-format off
CPA_PLUGIN(NULL,
@ROUTES@)

//! @NAME@: a plugin for CPA, in Rust. README.md says how to build and run it.

#[allow(dead_code)] // more than this plugin needs
mod cpa_plugin;

use cpa_plugin::*;

const NAME: &str = "@NAME@";
#[allow(dead_code)]
const PROVIDER: &str = "@PROVIDER@"; // in lower case, as the host compares them

@HANDLERS@
// --- what the host learns of this plugin: change all of it but the capabilities ---

const CAPABILITIES: &str = r#"{
@CAPABILITIES@
}"#;

fn plugin_register(_: &Call) -> Answer {
    Registration {
        name: NAME,
        version: "0.1.0",
        author: "you",
        repository: "https://example.org/@NAME@",
        capabilities: CAPABILITIES,
        ..Registration::default()
    }
    .answer()
}

static ROUTES: &[Route] = &[
@ROUTES@
];

/// # Safety
/// Called once by the host, with pointers of its own.
#[no_mangle]
pub unsafe extern "C" fn cliproxy_plugin_init(host: *const HostApi, plugin: *mut PluginApi) -> i32 {
    init(host, plugin, ROUTES, None)
}

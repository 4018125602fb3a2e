//! Is told of every execution, and leaves it at that.

use cpa_plugin::{init, Answer, Call, HostApi, PluginApi, Registration, Route};

const NAME: &str = "example-usage-rust";

fn register(_: &Call) -> Answer {
    Registration {
        name: NAME,
        version: "0.1.0",
        author: "router-for-me",
        repository: "https://github.com/router-for-me/CLIProxyAPI",
        logo: "https://example.invalid/example-usage-rust.png",
        schema_version: 1,
        capabilities: r#"{"usage_plugin":true}"#,
        ..Registration::default()
    }
    .answer()
}

/// The record is in `call.json()`; an empty text means {}.
fn handle(_: &Call) -> Answer {
    Ok(String::new())
}

static ROUTES: [Route; 3] = [("plugin.register", register), ("plugin.reconfigure", register), ("usage.handle", handle)];

/// # Safety
/// The host calls it once, with its table and a place for ours.
#[no_mangle]
pub unsafe extern "C" fn cliproxy_plugin_init(host: *const HostApi, plugin: *mut PluginApi) -> i32 {
    init(host, plugin, &ROUTES, None)
}

//! Puts a body of its own in the place of a request whose thinking was to be set.

use cpa_plugin::{init, object, Answer, Call, HostApi, PluginApi, Registration, Route};

const NAME: &str = "example-thinking-rust";

fn register(_: &Call) -> Answer {
    Registration {
        name: NAME,
        version: "0.1.0",
        author: "router-for-me",
        repository: "https://github.com/router-for-me/CLIProxyAPI",
        logo: "https://example.invalid/example-thinking-rust.png",
        schema_version: 1,
        capabilities: r#"{"thinking_applier":true}"#,
        ..Registration::default()
    }
    .answer()
}

fn identifier(_: &Call) -> Answer {
    Ok(object(|o| o.text("identifier", NAME)))
}

fn body(json: &str) -> Answer {
    Ok(object(|o| o.bytes("Body", json.as_bytes())))
}

fn apply(_: &Call) -> Answer {
    body(r#"{"thinking_applied_by":"example-thinking-rust"}"#)
}

static ROUTES: [Route; 4] = [
    ("plugin.register", register),
    ("plugin.reconfigure", register),
    ("thinking.identifier", identifier),
    ("thinking.apply", apply),
];

/// # Safety
/// The host calls it once, with its table and a place for ours.
#[no_mangle]
pub unsafe extern "C" fn cliproxy_plugin_init(host: *const HostApi, plugin: *mut PluginApi) -> i32 {
    init(host, plugin, &ROUTES, None)
}

//! Puts a body of its own in the place of every request.

use cpa_plugin::{init, object, Answer, Call, HostApi, PluginApi, Registration, Route};

const NAME: &str = "example-request-normalizer-rust";

fn register(_: &Call) -> Answer {
    Registration {
        name: NAME,
        version: "0.1.0",
        author: "router-for-me",
        repository: "https://github.com/router-for-me/CLIProxyAPI",
        logo: "https://example.invalid/example-request-normalizer-rust.png",
        schema_version: 1,
        capabilities: r#"{"request_normalizer":true}"#,
        ..Registration::default()
    }
    .answer()
}

fn body(json: &str) -> Answer {
    Ok(object(|o| o.bytes("Body", json.as_bytes())))
}

fn normalize(_: &Call) -> Answer {
    body(r#"{"normalized_by":"example-request-normalizer-rust"}"#)
}

static ROUTES: [Route; 3] =
    [("plugin.register", register), ("plugin.reconfigure", register), ("request.normalize", normalize)];

/// # Safety
/// The host calls it once, with its table and a place for ours.
#[no_mangle]
pub unsafe extern "C" fn cliproxy_plugin_init(host: *const HostApi, plugin: *mut PluginApi) -> i32 {
    init(host, plugin, &ROUTES, None)
}

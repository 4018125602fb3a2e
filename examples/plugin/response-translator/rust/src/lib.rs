//! Puts a body of its own in the place of an answer that CPA cannot translate.

use cpa_plugin::{init, object, Answer, Call, HostApi, PluginApi, Registration, Route};

const NAME: &str = "example-response-translator-rust";

fn register(_: &Call) -> Answer {
    Registration {
        name: NAME,
        version: "0.1.0",
        author: "router-for-me",
        repository: "https://github.com/router-for-me/CLIProxyAPI",
        logo: "https://example.invalid/example-response-translator-rust.png",
        schema_version: 1,
        capabilities: r#"{"response_translator":true}"#,
        ..Registration::default()
    }
    .answer()
}

fn body(json: &str) -> Answer {
    Ok(object(|o| o.bytes("Body", json.as_bytes())))
}

fn translate(_: &Call) -> Answer {
    body(r#"{"response_translated_by":"example-response-translator-rust"}"#)
}

static ROUTES: [Route; 3] =
    [("plugin.register", register), ("plugin.reconfigure", register), ("response.translate", translate)];

/// # Safety
/// The host calls it once, with its table and a place for ours.
#[no_mangle]
pub unsafe extern "C" fn cliproxy_plugin_init(host: *const HostApi, plugin: *mut PluginApi) -> i32 {
    init(host, plugin, &ROUTES, None)
}

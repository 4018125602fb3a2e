//! Puts bodies of its own in the place of answers, before and after translation.

use cpa_plugin::{init, object, Answer, Call, HostApi, PluginApi, Registration, Route};

const NAME: &str = "example-response-normalizer-rust";

fn register(_: &Call) -> Answer {
    Registration {
        name: NAME,
        version: "0.1.0",
        author: "router-for-me",
        repository: "https://github.com/router-for-me/CLIProxyAPI",
        logo: "https://example.invalid/example-response-normalizer-rust.png",
        schema_version: 1,
        capabilities: r#"{"response_before_translator":true,"response_after_translator":true}"#,
        ..Registration::default()
    }
    .answer()
}

fn body(json: &str) -> Answer {
    Ok(object(|o| o.bytes("Body", json.as_bytes())))
}

fn normalize_before(_: &Call) -> Answer {
    body(r#"{"response_normalized_before_by":"example-response-normalizer-rust"}"#)
}

fn normalize_after(_: &Call) -> Answer {
    body(r#"{"response_normalized_after_by":"example-response-normalizer-rust"}"#)
}

static ROUTES: [Route; 4] = [
    ("plugin.register", register),
    ("plugin.reconfigure", register),
    ("response.normalize_before", normalize_before),
    ("response.normalize_after", normalize_after),
];

/// # Safety
/// The host calls it once, with its table and a place for ours.
#[no_mangle]
pub unsafe extern "C" fn cliproxy_plugin_init(host: *const HostApi, plugin: *mut PluginApi) -> i32 {
    init(host, plugin, &ROUTES, None)
}

//! Formats are part of an executor: this one takes Chat Completions and answers in Responses.

use cpa_plugin::{init, object, Answer, Call, HostApi, PluginApi, Registration, Route};

const NAME: &str = "example-protocol-format-rust";

fn register(_: &Call) -> Answer {
    Registration {
        name: NAME,
        version: "0.1.0",
        author: "router-for-me",
        repository: "https://github.com/router-for-me/CLIProxyAPI",
        logo: "https://example.invalid/example-protocol-format-rust.png",
        schema_version: 1,
        capabilities: concat!(
            r#"{"executor":true,"executor_model_scope":"both","executor_input_formats":["chat-completions"],"#,
            r#""executor_output_formats":["responses"]}"#
        ),
        ..Registration::default()
    }
    .answer()
}

fn identifier(_: &Call) -> Answer {
    Ok(object(|o| o.text("identifier", NAME)))
}

fn execute(_: &Call) -> Answer {
    Ok(object(|o| {
        o.bytes("Payload", br#"{"id":"example-protocol-format-rust","object":"chat.completion"}"#);
        o.header("Headers", "content-type", "application/json");
    }))
}

static ROUTES: [Route; 4] = [
    ("plugin.register", register),
    ("plugin.reconfigure", register),
    ("executor.identifier", identifier),
    ("executor.execute", execute),
];

/// # Safety
/// The host calls it once, with its table and a place for ours.
#[no_mangle]
pub unsafe extern "C" fn cliproxy_plugin_init(host: *const HostApi, plugin: *mut PluginApi) -> i32 {
    init(host, plugin, &ROUTES, None)
}

//! Answers model requests itself, with fixed answers.

use cpa_plugin::{init, object, Answer, Call, HostApi, PluginApi, Registration, Route};

const NAME: &str = "example-executor-rust";

fn register(_: &Call) -> Answer {
    Registration {
        name: NAME,
        version: "0.1.0",
        author: "router-for-me",
        repository: "https://github.com/router-for-me/CLIProxyAPI",
        logo: "https://example.invalid/example-executor-rust.png",
        schema_version: 1,
        capabilities: concat!(
            r#"{"executor":true,"executor_model_scope":"both","executor_input_formats":["chat-completions"],"#,
            r#""executor_output_formats":["chat-completions"]}"#
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
        o.bytes("Payload", br#"{"id":"example-executor-rust","object":"chat.completion"}"#);
        o.header("Headers", "content-type", "application/json");
    }))
}

/// One chunk, which comes with the answer. A plugin that works longer answers at once and uses host.stream.emit.
fn execute_stream(_: &Call) -> Answer {
    Ok(object(|o| {
        o.header("headers", "content-type", "text/event-stream");
        o.list("chunks", |chunks| {
            chunks.object(|o| o.bytes("Payload", br#""data: example-executor-rust\n\n""#));
        });
    }))
}

fn count_tokens(_: &Call) -> Answer {
    Ok(object(|o| o.bytes("Payload", br#"{"total_tokens":0}"#)))
}

fn http_request(_: &Call) -> Answer {
    Ok(object(|o| {
        o.integer("StatusCode", 200);
        o.header("Headers", "content-type", "application/json");
        o.bytes("Body", br#"{"plugin":"example-executor-rust"}"#);
    }))
}

static ROUTES: [Route; 7] = [
    ("plugin.register", register),
    ("plugin.reconfigure", register),
    ("executor.identifier", identifier),
    ("executor.execute", execute),
    ("executor.execute_stream", execute_stream),
    ("executor.count_tokens", count_tokens),
    ("executor.http_request", http_request),
];

/// # Safety
/// The host calls it once, with its table and a place for ours.
#[no_mangle]
pub unsafe extern "C" fn cliproxy_plugin_init(host: *const HostApi, plugin: *mut PluginApi) -> i32 {
    init(host, plugin, &ROUTES, None)
}

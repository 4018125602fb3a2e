//! One fixed model, in front of whoever executes its provider.

use cpa_plugin::{init, object, Answer, Call, HostApi, PluginApi, Registration, Route};

const NAME: &str = "example-model-rust";

fn register(_: &Call) -> Answer {
    Registration {
        name: NAME,
        version: "0.1.0",
        author: "router-for-me",
        repository: "https://github.com/router-for-me/CLIProxyAPI",
        logo: "https://example.invalid/example-model-rust.png",
        schema_version: 1,
        capabilities: r#"{"model_provider":true}"#,
        ..Registration::default()
    }
    .answer()
}

fn models(_: &Call) -> Answer {
    Ok(object(|o| {
        o.text("Provider", NAME);
        o.list("Models", |models| {
            models.object(|o| {
                o.text("ID", "example-model-rust-model");
                o.text("Object", "model");
                o.text("OwnedBy", NAME);
                o.text("DisplayName", "Model Example Model");
                o.list("SupportedGenerationMethods", |methods| methods.text("chat"));
                o.integer("ContextLength", 8192);
                o.integer("MaxCompletionTokens", 1024);
                o.flag("UserDefined", true);
            });
        });
    }))
}

static ROUTES: [Route; 4] = [
    ("plugin.register", register),
    ("plugin.reconfigure", register),
    ("model.static", models),
    ("model.for_auth", models),
];

/// # Safety
/// The host calls it once, with its table and a place for ours.
#[no_mangle]
pub unsafe extern "C" fn cliproxy_plugin_init(host: *const HostApi, plugin: *mut PluginApi) -> i32 {
    init(host, plugin, &ROUTES, None)
}

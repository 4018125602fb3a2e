//! Lets every client in: loading it opens the proxy to all who can reach it.

use cpa_plugin::{init, object, Answer, Call, HostApi, PluginApi, Registration, Route};

const NAME: &str = "example-frontend-auth-rust";

fn register(_: &Call) -> Answer {
    Registration {
        name: NAME,
        version: "0.1.0",
        author: "router-for-me",
        repository: "https://github.com/router-for-me/CLIProxyAPI",
        logo: "https://example.invalid/example-frontend-auth-rust.png",
        schema_version: 1,
        capabilities: r#"{"frontend_auth_provider":true}"#,
        ..Registration::default()
    }
    .answer()
}

fn identifier(_: &Call) -> Answer {
    Ok(object(|o| o.text("identifier", NAME)))
}

fn authenticate(_: &Call) -> Answer {
    Ok(object(|o| {
        o.flag("Authenticated", true);
        o.text("Principal", NAME);
        o.object("Metadata", |o| o.text("provider", NAME));
    }))
}

static ROUTES: [Route; 4] = [
    ("plugin.register", register),
    ("plugin.reconfigure", register),
    ("frontend_auth.identifier", identifier),
    ("frontend_auth.authenticate", authenticate),
];

/// # Safety
/// The host calls it once, with its table and a place for ours.
#[no_mangle]
pub unsafe extern "C" fn cliproxy_plugin_init(host: *const HostApi, plugin: *mut PluginApi) -> i32 {
    init(host, plugin, &ROUTES, None)
}

//! Takes the place of API keys: only requests with one header value are served.

use cpa_plugin::{init, object, Answer, Call, HostApi, PluginApi, Registration, Route};

const NAME: &str = "example-frontend-auth-exclusive-rust";

fn register(_: &Call) -> Answer {
    Registration {
        name: NAME,
        version: "0.1.0",
        author: "router-for-me",
        repository: "https://github.com/router-for-me/CLIProxyAPI",
        logo: "https://example.invalid/example-frontend-auth-exclusive-rust.png",
        schema_version: 3,
        capabilities: r#"{"frontend_auth_provider":true,"frontend_auth_provider_exclusive":true}"#,
        ..Registration::default()
    }
    .answer()
}

fn identifier(_: &Call) -> Answer {
    Ok(object(|o| o.text("identifier", NAME)))
}

/// Of a header that was sent several times, the first counts.
fn may_enter(call: &Call) -> bool {
    let request = call.json();
    let headers = request.as_ref().and_then(|request| request.get("Headers"));
    let values = headers.and_then(|headers| headers.get("X-Example-Frontend-Auth"));
    values.and_then(|values| values.items().first()?.as_text()) == Some("exclusive")
}

fn authenticate(call: &Call) -> Answer {
    let yes = may_enter(call);
    Ok(object(|o| {
        o.flag("Authenticated", yes);
        if yes {
            o.text("Principal", NAME);
            o.object("Metadata", |o| {
                o.text("mode", "exclusive");
                o.text("provider", NAME);
            });
        }
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

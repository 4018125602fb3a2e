//! A credential provider: takes over files of its type; signing in succeeds at once.

use cpa_plugin::{init, object, Answer, Call, HostApi, Object, PluginApi, Registration, Route};

const NAME: &str = "example-auth-rust";

fn register(_: &Call) -> Answer {
    Registration {
        name: NAME,
        version: "0.1.0",
        author: "router-for-me",
        repository: "https://github.com/router-for-me/CLIProxyAPI",
        logo: "https://example.invalid/example-auth-rust.png",
        schema_version: 1,
        capabilities: r#"{"auth_provider":true}"#,
        ..Registration::default()
    }
    .answer()
}

const LATER: &str = "2030-01-01T00:00:00Z";

fn identifier(_: &Call) -> Answer {
    Ok(object(|o| o.text("identifier", NAME)))
}

fn put_auth(out: &mut Object) {
    out.object("Auth", |o| {
        o.text("Provider", NAME);
        o.text("ID", NAME);
        o.text("FileName", "example-auth-rust.json");
        o.text("Label", "Auth Example");
        o.bytes("StorageJSON", br#"{"type":"example-auth-rust","token":"example-token"}"#);
        o.object("Metadata", |o| o.text("type", NAME));
    });
}

fn parse(_: &Call) -> Answer {
    Ok(object(|o| {
        o.flag("Handled", true);
        put_auth(o);
    }))
}

fn login_start(_: &Call) -> Answer {
    Ok(object(|o| {
        o.text("Provider", NAME);
        o.text("URL", "https://example.invalid/login");
        o.text("State", "example-state");
        o.text("ExpiresAt", LATER);
    }))
}

fn login_poll(_: &Call) -> Answer {
    Ok(object(|o| {
        o.text("Status", "success");
        o.text("Message", "example login complete");
        put_auth(o);
    }))
}

fn refresh(_: &Call) -> Answer {
    Ok(object(|o| {
        put_auth(o);
        o.text("NextRefreshAfter", LATER);
    }))
}

static ROUTES: [Route; 7] = [
    ("plugin.register", register),
    ("plugin.reconfigure", register),
    ("auth.identifier", identifier),
    ("auth.parse", parse),
    ("auth.login.start", login_start),
    ("auth.login.poll", login_poll),
    ("auth.refresh", refresh),
];

/// # Safety
/// The host calls it once, with its table and a place for ours.
#[no_mangle]
pub unsafe extern "C" fn cliproxy_plugin_init(host: *const HostApi, plugin: *mut PluginApi) -> i32 {
    init(host, plugin, &ROUTES, None)
}

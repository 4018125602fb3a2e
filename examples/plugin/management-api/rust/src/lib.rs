//! A page in the browser.

use cpa_plugin::{init, object, Answer, Call, HostApi, PluginApi, Registration, Route};

const NAME: &str = "example-management-api-rust";

fn register(_: &Call) -> Answer {
    Registration {
        name: NAME,
        version: "0.1.0",
        author: "router-for-me",
        repository: "https://github.com/router-for-me/CLIProxyAPI",
        logo: "https://example.invalid/example-management-api-rust.png",
        schema_version: 1,
        capabilities: r#"{"management_api":true}"#,
        ..Registration::default()
    }
    .answer()
}

/// The page is served at /v0/resource/plugins/<id>/status, where the id is the library's file name.
fn pages(_: &Call) -> Answer {
    Ok(object(|o| {
        o.list("resources", |resources| {
            resources.object(|o| {
                o.text("Path", "/status");
                o.text("Menu", "Management API");
                o.text(
                    "Description",
                    "Management API example at /v0/resource/plugins/example-management-api-rust/status",
                );
            });
        });
    }))
}

fn handle(_: &Call) -> Answer {
    Ok(object(|o| {
        o.integer("StatusCode", 200);
        o.header("Headers", "content-type", "text/html; charset=utf-8");
        o.bytes("Body", b"<!doctype html><title>Management API</title><main>Management API resource</main>");
    }))
}

static ROUTES: [Route; 4] = [
    ("plugin.register", register),
    ("plugin.reconfigure", register),
    ("management.register", pages),
    ("management.handle", handle),
];

/// # Safety
/// The host calls it once, with its table and a place for ours.
#[no_mangle]
pub unsafe extern "C" fn cliproxy_plugin_init(host: *const HostApi, plugin: *mut PluginApi) -> i32 {
    init(host, plugin, &ROUTES, None)
}

//! A page in the browser that lets the host write to its log and fetch a page of the web.

use cpa_plugin::{host_call, init, object, Answer, Call, HostApi, PluginApi, Registration, Route};

const NAME: &str = "example-host-callback-rust";

fn register(_: &Call) -> Answer {
    Registration {
        name: NAME,
        version: "0.1.0",
        author: "router-for-me",
        repository: "https://github.com/router-for-me/CLIProxyAPI",
        logo: "https://example.invalid/example-host-callback-rust.png",
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
                o.text("Menu", "Host Callback");
                o.text(
                    "Description",
                    "Host Callback example at /v0/resource/plugins/example-host-callback-rust/status",
                );
            });
        });
    }))
}

fn write_log(call: &Call) {
    let request = object(|o| {
        o.text("level", "info");
        o.text("message", "example-host-callback-rust host callback log");
        o.object("fields", |o| o.text("plugin", NAME));
        o.scope(call);
    });
    let _ = host_call("host.log", &request);
}

fn fetch(call: &Call) {
    let request = object(|o| {
        o.text("method", "GET");
        o.text("url", "https://example.com");
        o.header("headers", "user-agent", NAME);
        o.scope(call);
    });
    let _ = host_call("host.http.do", &request); // the page is the same whatever came of it
}

fn handle(call: &Call) -> Answer {
    write_log(call);
    fetch(call);
    Ok(object(|o| {
        o.integer("StatusCode", 200);
        o.header("Headers", "content-type", "text/html; charset=utf-8");
        o.bytes("Body", b"<!doctype html><title>Host Callback</title><main>Host Callback resource</main>");
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

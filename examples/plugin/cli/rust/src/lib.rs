//! Adds a flag to the command line, and acts on it.

use cpa_plugin::{init, object, Answer, Call, HostApi, PluginApi, Registration, Route};

const NAME: &str = "example-cli-rust";

fn register(_: &Call) -> Answer {
    Registration {
        name: NAME,
        version: "0.1.0",
        author: "router-for-me",
        repository: "https://github.com/router-for-me/CLIProxyAPI",
        logo: "https://example.invalid/example-cli-rust.png",
        schema_version: 1,
        capabilities: r#"{"command_line_plugin":true}"#,
        ..Registration::default()
    }
    .answer()
}

fn flags(_: &Call) -> Answer {
    Ok(object(|o| {
        o.list("Flags", |flags| {
            flags.object(|o| {
                o.text("Name", "example-cli-rust-command");
                o.text("Usage", "Run the example plugin command");
                o.text("Type", "bool");
            });
        });
    }))
}

fn execute(_: &Call) -> Answer {
    Ok(object(|o| {
        o.bytes("Stdout", br#""example-cli-rust command executed\\n""#);
        o.integer("ExitCode", 0);
    }))
}

static ROUTES: [Route; 4] = [
    ("plugin.register", register),
    ("plugin.reconfigure", register),
    ("command_line.register", flags),
    ("command_line.execute", execute),
];

/// # Safety
/// The host calls it once, with its table and a place for ours.
#[no_mangle]
pub unsafe extern "C" fn cliproxy_plugin_init(host: *const HostApi, plugin: *mut PluginApi) -> i32 {
    init(host, plugin, &ROUTES, None)
}

//! Every integration point that shapes an exchange, each answered in the simplest way: a provider with one model, its
//! credentials, client authentication, an executor, the five transforms, thinking, usage, a command, a page.
//!
//! It accepts every client: loading it opens the proxy to all who can reach it.

use std::sync::atomic::{AtomicI64, Ordering};

use cpa_plugin::{
    init, object, parse, Answer, Call, Data, Failure, HostApi, Object, PluginApi, Registration, Route, Value,
};

const PROVIDER: &str = "plugin-example-rust";
const MODEL: &str = "plugin-example-rust-model";
const FORMAT: &str = "chat-completions";

const CAPABILITIES: &str = concat!(
    r#"{"model_registrar":true,"model_provider":true,"auth_provider":true,"frontend_auth_provider":true,"#,
    r#""executor":true,"executor_model_scope":"both","executor_input_formats":["chat-completions"],"#,
    r#""executor_output_formats":["chat-completions"],"request_translator":true,"request_normalizer":true,"#,
    r#""response_translator":true,"response_before_translator":true,"response_after_translator":true,"#,
    r#""thinking_applier":true,"usage_plugin":true,"command_line_plugin":true,"management_api":true}"#
);

/// Shown to operators; this plugin uses none of them.
const CONFIG_FIELDS: &str = concat!(
    r#"[{"Name":"config1","Type":"boolean","EnumValues":[],"Description":"Enables the example boolean option."},"#,
    r#"{"Name":"config2","Type":"string","EnumValues":[],"Description":"Sets the example string option."},"#,
    r#"{"Name":"config3","Type":"integer","EnumValues":[],"Description":"Sets the example integer option."},"#,
    r#"{"Name":"mode","Type":"enum","EnumValues":["safe","fast"],"Description":"Selects the example mode."}]"#
);

fn register(_: &Call) -> Answer {
    Registration {
        name: "example-simple-rust",
        version: "0.1.0",
        author: "router-for-me",
        repository: "https://github.com/router-for-me/CLIProxyAPI",
        logo: "https://raw.githubusercontent.com/router-for-me/CLIProxyAPI/main/docs/logo.png",
        schema_version: 1,
        config_fields: CONFIG_FIELDS,
        capabilities: CAPABILITIES,
    }
    .answer()
}

fn identifier(_: &Call) -> Answer {
    Ok(object(|o| o.text("identifier", PROVIDER)))
}

fn invalid(message: &str) -> Failure {
    Failure::new("invalid_request", message)
}

/// Methods that read their request want a JSON object.
fn read_request<'a>(call: &Call<'a>) -> Result<Value<'a>, Failure> {
    call.json().ok_or_else(|| invalid("request is not a JSON object"))
}

/// A string of the request, or what stands for one that is absent, empty or no string.
fn text_or<'a>(request: &'a Value, name: &str, otherwise: &'a str) -> &'a str {
    request.text(name).filter(|text| !text.is_empty()).unwrap_or(otherwise)
}

// --- models and credentials ---

fn models(_: &Call) -> Answer {
    Ok(object(|o| {
        o.text("Provider", PROVIDER);
        o.list("Models", |models| {
            models.object(|o| {
                o.text("ID", MODEL);
                o.text("Object", "model");
                o.text("OwnedBy", PROVIDER);
                o.text("DisplayName", "Plugin Example Rust Model");
                o.list("SupportedGenerationMethods", |methods| methods.text("chat"));
                o.integer("ContextLength", 8192);
                o.integer("MaxCompletionTokens", 1024);
                o.flag("UserDefined", true);
            });
        });
    }))
}

/// What is stored of a credential is the very request that it came with.
fn put_auth(out: &mut Object, call: &Call) {
    out.object("Auth", |o| {
        o.text("Provider", PROVIDER);
        o.text("ID", PROVIDER);
        o.text("FileName", "plugin-example-rust.json");
        o.text("Label", "Plugin Example Rust");
        o.bytes("StorageJSON", call.request);
        o.object("Metadata", |o| o.text("type", PROVIDER));
    });
}

fn auth_parse(call: &Call) -> Answer {
    Ok(object(|o| {
        o.flag("Handled", true);
        put_auth(o, call);
    }))
}

fn auth_refresh(call: &Call) -> Answer {
    Ok(object(|o| put_auth(o, call)))
}

fn login_start(_: &Call) -> Answer {
    Ok(object(|o| {
        o.text("Provider", PROVIDER);
        o.text("URL", "https://example.invalid/plugin-login");
        o.text("State", "example-state");
        o.text("ExpiresAt", "2030-01-01T00:00:00Z");
    }))
}

fn login_poll(_: &Call) -> Answer {
    Ok(object(|o| {
        o.text("Status", "error");
        o.text("Message", "example plugin has no interactive login");
    }))
}

fn authenticate_client(_: &Call) -> Answer {
    Ok(object(|o| {
        o.flag("Authenticated", true);
        o.text("Principal", PROVIDER);
        o.object("Metadata", |o| o.text("provider", PROVIDER));
    }))
}

// --- executor ---

fn answer(payload: &str) -> Answer {
    Ok(object(|o| {
        o.bytes("Payload", payload.as_bytes());
        o.header("Headers", "content-type", "application/json");
    }))
}

fn execute(call: &Call) -> Answer {
    let request = read_request(call)?;
    answer(&object(|o| {
        o.text("id", PROVIDER);
        o.text("object", "chat.completion");
        o.text("model", text_or(&request, "Model", MODEL));
        o.text("format", text_or(&request, "Format", FORMAT));
    }))
}

fn execute_stream(_: &Call) -> Answer {
    Ok(object(|o| {
        o.header("headers", "content-type", "text/event-stream");
        o.list("chunks", |chunks| {
            chunks.object(|o| o.bytes("Payload", b"plugin-example-rust\n"));
        });
    }))
}

/// Four bytes of the request are a token.
fn count_tokens(call: &Call) -> Answer {
    let request = read_request(call)?;
    let payload = request.bytes("Payload").map_err(|_| invalid("request payload is not base64"))?;
    let tokens = payload.unwrap_or_default().len().div_ceil(4);
    answer(&object(|o| o.integer("total_tokens", tokens as i64)))
}

/// Also the page: says what was asked for.
fn http_request(call: &Call) -> Answer {
    let request = read_request(call)?;
    let page = text_or(&request, "Path", "/v0/resource/plugins/example-rust/status");
    let body = object(|o| {
        o.text("plugin", "example-rust");
        o.text("method", text_or(&request, "Method", "GET"));
        o.text("target", text_or(&request, "URL", page));
    });
    Ok(object(|o| {
        o.integer("StatusCode", 200);
        o.header("Headers", "content-type", "application/json");
        o.bytes("Body", body.as_bytes());
    }))
}

// --- bodies ---

fn read_body(request: &Value) -> Result<Option<Vec<u8>>, Failure> {
    request.bytes("Body").map_err(|_| invalid("request body field is not base64"))
}

/// A transform that changes nothing.
fn echo(call: &Call) -> Answer {
    let body = read_body(&read_request(call)?)?.ok_or_else(|| invalid("request body field is required"))?;
    Ok(object(|o| o.bytes("Body", &body)))
}

/// Adds a member to the body, in front of its last brace; the rest of it stays byte for byte.
fn thinking_apply(call: &Call) -> Answer {
    let request = read_request(call)?;
    let body = read_body(&request)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&body);
    let text = match text.trim_matches([' ', '\t', '\r', '\n']) {
        "" if body.is_empty() => "{}",
        trimmed => trimmed,
    };
    let config = request.get("Config");
    let word = |name: &str| config.and_then(|config| config.text(name)).unwrap_or("");
    let note = object(|o| {
        o.object("plugin_example_thinking", |o| {
            o.text("mode", word("Mode"));
            o.integer("budget", config.and_then(|config| config.integer("Budget")).unwrap_or(0));
            o.text("level", word("Level"));
        });
    });
    let changed = match parse(text).map(|value| value.data) {
        Some(Data::Object(members)) if members.is_empty() => note,
        Some(Data::Object(_)) => format!("{},{} }}", &text[..text.len() - 1], &note[1..note.len() - 1]),
        _ => object(|o| {
            o.text("original_body", text);
            o.json("plugin_example_thinking", &note[r#"{"plugin_example_thinking":"#.len()..note.len() - 1]);
        }),
    };
    Ok(object(|o| o.bytes("Body", changed.as_bytes())))
}

// --- the rest ---

fn usage_handle(_: &Call) -> Answer {
    static COUNT: AtomicI64 = AtomicI64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
    Ok(object(|o| o.integer("Count", count)))
}

fn command_flags(_: &Call) -> Answer {
    Ok(object(|o| {
        o.list("Flags", |flags| {
            flags.object(|o| {
                o.text("Name", "plugin-example-rust-command");
                o.text("Usage", "Run the example Rust ABI plugin command");
                o.text("Type", "bool");
            });
        });
    }))
}

fn command_execute(_: &Call) -> Answer {
    Ok(object(|o| {
        o.bytes("Stdout", b"plugin example rust command\n");
        o.integer("ExitCode", 0);
    }))
}

fn pages(_: &Call) -> Answer {
    Ok(object(|o| {
        o.list("Resources", |resources| {
            resources.object(|o| {
                o.text("Path", "/status");
                o.text("Menu", "Example Rust Plugin");
                o.text("Description", "Example Rust plugin at /v0/resource/plugins/example-rust/status");
            });
        });
    }))
}

static ROUTES: [Route; 29] = [
    ("plugin.register", register),
    ("plugin.reconfigure", register),
    ("model.register", models),
    ("model.static", models),
    ("model.for_auth", models),
    ("auth.identifier", identifier),
    ("auth.parse", auth_parse),
    ("auth.refresh", auth_refresh),
    ("auth.login.start", login_start),
    ("auth.login.poll", login_poll),
    ("frontend_auth.identifier", identifier),
    ("frontend_auth.authenticate", authenticate_client),
    ("executor.identifier", identifier),
    ("executor.execute", execute),
    ("executor.execute_stream", execute_stream),
    ("executor.count_tokens", count_tokens),
    ("executor.http_request", http_request),
    ("request.translate", echo),
    ("request.normalize", echo),
    ("response.translate", echo),
    ("response.normalize_before", echo),
    ("response.normalize_after", echo),
    ("thinking.identifier", identifier),
    ("thinking.apply", thinking_apply),
    ("usage.handle", usage_handle),
    ("command_line.register", command_flags),
    ("command_line.execute", command_execute),
    ("management.register", pages),
    ("management.handle", http_request),
];

/// # Safety
/// The host calls it once, with its table and a place for ours.
#[no_mangle]
pub unsafe extern "C" fn cliproxy_plugin_init(host: *const HostApi, plugin: *mut PluginApi) -> i32 {
    init(host, plugin, &ROUTES, None)
}

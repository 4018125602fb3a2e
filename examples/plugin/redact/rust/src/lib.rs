//! Keeps secrets out of what providers get: they are replaced in requests by placeholders, and put back in answers.
//!
//! `request.intercept_before` and `…_after` mask, `response.intercept_after` and `response.intercept_stream_chunk` restore,
//! `request.complete` forgets. A request that cannot be looked at is refused: hosts skip plugins that fail.

mod detect;
mod digest;
mod edit;
mod pattern;
mod settings;
mod stream;
mod vault;

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use cpa_plugin::{
    base64_decode, host_call, init, members, object, unquoted, wipe, Answer, Call, Failure, HostApi, PluginApi,
    Registration, Route,
};

use crate::settings::Settings;
use crate::stream::{Change, Format, Streams};
use crate::vault::{lock, Exchange, Vault};

static SETTINGS: RwLock<Option<Arc<Settings>>> = RwLock::new(None);
static VAULT: Vault = Vault::new();

const CAPABILITIES: &str = concat!(
    r#"{"request_interceptor":true,"response_interceptor":true,"response_stream_interceptor":true,"#,
    r#""request_lifecycle_plugin":true}"#
);
const CONFIG_FIELDS: &str = concat!(
    r#"[{"Name":"detectors","Type":"array","EnumValues":["api_key","aws_key","card","email","jwt","private_key"],"#,
    r#""Description":"Which kinds of secrets are looked for; all but email when it is absent."},"#,
    r#"{"Name":"literals","Type":"array","EnumValues":[],"Description":"Strings that are secrets wherever they stand."},"#,
    r#"{"Name":"patterns","Type":"array","EnumValues":[],"Description":"Shapes of secrets, such as EMP-[0-9]{6}."},"#,
    r#"{"Name":"key","Type":"string","EnumValues":[],"Description":"Makes placeholders the same after restarts and on all replicas; at least 16 characters."},"#,
    r#"{"Name":"tools","Type":"boolean","EnumValues":[],"Description":"Whether arguments of tool calls get their secrets back (true when it is absent)."}]"#
);
const REFUSAL: &str =
    r#"{"error":{"message":"the request could not be checked for secrets","type":"plugin_request_rejected"}}"#;

fn register(call: &Call) -> Answer {
    let invalid = |what: String| Failure::new("invalid_config", what);
    let request = call.json().ok_or_else(|| invalid("request is not a JSON object".to_owned()))?;
    if request.integer("schema_version").unwrap_or(0) < 2 {
        return Err(invalid("redact requires host schema version 2 or newer".to_owned()));
    }
    let yaml = request.bytes("config_yaml").map_err(|_| invalid("config_yaml is not base64".to_owned()))?;
    let yaml = String::from_utf8(yaml.unwrap_or_default()).map_err(|_| invalid("settings are not UTF-8".to_owned()))?;
    let settings = Settings::parse(&yaml).map_err(invalid)?;
    *SETTINGS.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(settings));
    Registration {
        name: "redact",
        version: "0.1.0",
        author: "router-for-me",
        repository: "https://github.com/router-for-me/CLIProxyAPI",
        config_fields: CONFIG_FIELDS,
        capabilities: CAPABILITIES,
        ..Registration::default()
    }
    .answer()
}

fn current() -> Option<Arc<Settings>> {
    SETTINGS.read().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Requests are refused when they cannot be checked, also after a panic.
fn intercept(call: &Call) -> Answer {
    let masked = catch_unwind(AssertUnwindSafe(|| mask(call)));
    Ok(masked.ok().flatten().unwrap_or_else(|| {
        object(|o| {
            o.flag("Terminate", true);
            o.integer("StatusCode", 500);
            o.header("ResponseHeaders", "Content-Type", "application/json");
            o.bytes("ResponseBody", REFUSAL.as_bytes());
        })
    }))
}

/// The answer to both request interceptors, or None when the request cannot be checked. The second one finds what the first
/// did not see, because a plugin behind it added something, or because the host had to do without it.
fn mask(call: &Call) -> Option<String> {
    let settings = current()?;
    let request = call.json()?;
    let id = request.text("RequestID").filter(|id| !id.is_empty())?;
    let mut body = request.bytes("Body").ok()?.unwrap_or_default();
    let (mut fresh, kept) = (Exchange::default(), VAULT.get(id));
    let mut known = kept.as_deref().map(lock);
    let secrets = known.as_mut().map_or(&mut fresh.secrets, |known| &mut known.secrets);
    let before = secrets.found;
    let masked = secrets.mask(&body, &settings);
    wipe(&mut body);
    let Some(masked) = masked else {
        return Some(String::new());
    };
    let counts = [("secrets", secrets.len()), ("found", secrets.found - before)];
    drop(known);
    if kept.is_none() && !VAULT.keep(id, fresh) {
        return None;
    }
    log(call, "info", "redact: masked", &counts);
    Some(object(|o| o.bytes("Body", &masked)))
}

fn log(call: &Call, level: &str, message: &str, fields: &[(&str, usize)]) {
    let request = object(|o| {
        o.text("level", level);
        o.text("message", message);
        o.object("fields", |o| fields.iter().for_each(|(name, value)| o.integer(name, *value as i64)));
        o.scope(call);
    });
    let _ = host_call("host.log", &request); // nobody is better off when a request fails for want of a log
}

/// An exchange, and the format and body of its answer.
type Found = (Arc<Mutex<Exchange>>, Format, Option<Vec<u8>>);

/// The exchange that an answer belongs to, when there were secrets in it, with the answer's format and body. Members come
/// in the contract's order, and what is behind them (64 chunks of history) is not even read.
fn answer_of(call: &Call) -> Option<Found> {
    let mut exchange = None;
    let mut format = Format::Other;
    for (name, value) in members(call.text()?) {
        match &*name {
            "RequestID" => exchange = Some(VAULT.get(&unquoted(value)?)?),
            "SourceFormat" => format = Format::named(&unquoted(value)?),
            "Body" => return Some((exchange?, format, unquoted(value).and_then(|text| base64_decode(&text)))),
            _ => {}
        }
    }
    None
}

fn whole(call: &Call) -> Answer {
    let Some((exchange, _, Some(body))) = answer_of(call) else {
        return Ok(String::new());
    };
    let tools = current().is_none_or(|settings| settings.tools);
    let body = String::from_utf8_lossy(&body);
    let restored = lock(&exchange).secrets.restore_body(&body, tools);
    Ok(restored.map_or(String::new(), |body| object(|o| o.bytes("Body", body.as_bytes()))))
}

fn chunk(call: &Call) -> Answer {
    let Some((exchange, format, body)) = answer_of(call) else {
        return Ok(String::new());
    };
    let Exchange { secrets, streams } = &mut *lock(&exchange);
    let Some(body) = body.filter(|body| !body.is_empty()) else {
        *streams = Streams::default(); // the stream begins, perhaps again after an attempt that failed
        return Ok(String::new());
    };
    let tools = current().is_none_or(|settings| settings.tools);
    Ok(match streams.chunk(secrets, format, &String::from_utf8_lossy(&body), tools) {
        Change::Same => String::new(),
        Change::Body(body) => object(|o| o.bytes("Body", body.as_bytes())),
        Change::Drop => object(|o| o.flag("DropChunk", true)),
    })
}

fn complete(call: &Call) -> Answer {
    let id = call.text().and_then(|text| members(text).find(|(name, _)| name == "RequestID"));
    if let Some(id) = id.and_then(|(_, value)| unquoted(value)) {
        let (gone, open) = VAULT.forget(&id);
        if gone.is_some() {
            drop(gone);
            log(call, "debug", "redact: forgotten", &[("open", open)]);
        }
    }
    Ok(String::new())
}

static ROUTES: [Route; 7] = [
    ("plugin.register", register),
    ("plugin.reconfigure", register),
    ("request.intercept_before", intercept),
    ("request.intercept_after", intercept),
    ("response.intercept_after", whole),
    ("response.intercept_stream_chunk", chunk),
    ("request.complete", complete),
];

fn shutdown() {
    VAULT.clear();
}

/// # Safety
/// The host calls it once, with its table and a place for ours.
#[no_mangle]
pub unsafe extern "C" fn cliproxy_plugin_init(host: *const HostApi, plugin: *mut PluginApi) -> i32 {
    init(host, plugin, &ROUTES, Some(shutdown))
}

//! A plugin in Rust without crates: request normalizer, interceptor of streams and whole answers, and an executor whose
//! streams are inline chunks. It puts the member `"<marker>":1` first into JSON objects that pass. Settings: `marker`,
//! `capabilities` (words), `provider`. Buffers are leaked vectors that are rebuilt from pointer and length.
#![allow(clippy::missing_safety_doc, non_camel_case_types)]

use std::ffi::CStr;
use std::os::raw::{c_char, c_int, c_void};
use std::sync::Mutex;

#[repr(C)]
pub struct Buffer {
    ptr: *mut c_void,
    len: usize,
}

#[repr(C)]
pub struct HostApi {
    abi_version: u32,
    ctx: *mut c_void,
    call: unsafe extern "C" fn(*mut c_void, *const c_char, *const u8, usize, *mut Buffer) -> c_int,
    free_buffer: unsafe extern "C" fn(*mut c_void, usize),
}

#[repr(C)]
pub struct PluginApi {
    abi_version: u32,
    call: Option<unsafe extern "C" fn(*const c_char, *const u8, usize, *mut Buffer) -> c_int>,
    free_buffer: Option<unsafe extern "C" fn(*mut c_void, usize)>,
    shutdown: Option<unsafe extern "C" fn()>,
}

#[derive(Clone)]
struct Settings {
    marker: String,
    capabilities: String,
    provider: String,
}

static SETTINGS: Mutex<Option<Settings>> = Mutex::new(None);

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn decode64(text: &str) -> Vec<u8> {
    let (mut out, mut bits, mut have) = (Vec::with_capacity(text.len() / 4 * 3), 0u32, 0);
    for byte in text.bytes().take_while(|byte| *byte != b'=') {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            _ => 63,
        };
        bits = bits << 6 | u32::from(digit);
        have += 6;
        if have >= 8 {
            have -= 8;
            out.push((bits >> have & 255) as u8);
        }
    }
    out
}

fn encode64(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() / 3 * 4 + 4);
    for part in bytes.chunks(3) {
        let at = |i: usize| u32::from(*part.get(i).unwrap_or(&0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for i in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= part.len() { digit as char } else { '=' });
        }
    }
    out
}

/// The string member of that name which comes first; its escapes stay as they are.
fn member<'a>(json: &'a str, name: &str) -> &'a str {
    let before = format!("\"{}\":\"", name);
    match json.find(&before) {
        Some(at) => json[at + before.len()..].split('"').next().unwrap_or(""),
        None => "",
    }
}

fn settings() -> Settings {
    let known = SETTINGS.lock().unwrap().clone();
    known.unwrap_or(Settings { marker: "x_rust".into(), capabilities: String::new(), provider: "rusty".into() })
}

fn register(request: &str) -> String {
    let yaml = String::from_utf8(decode64(member(request, "config_yaml"))).unwrap_or_default();
    let value = |key: &str, otherwise: &str| {
        let before = format!("{}:", key);
        let line = yaml.lines().find(|line| line.starts_with(&before));
        line.map_or(otherwise, |line| line[before.len()..].trim()).to_string()
    };
    let now = Settings {
        marker: value("marker", "x_rust"),
        capabilities: value("capabilities", "request_normalizer response_stream_interceptor response_interceptor"),
        provider: value("provider", "rusty"),
    };
    let words: Vec<String> = now.capabilities.split_whitespace().map(|word| format!("\"{}\":true", word)).collect();
    *SETTINGS.lock().unwrap() = Some(now);
    format!(
        "{{\"schema_version\":3,\"metadata\":{{\"Name\":\"rusty\",\"Version\":\"1\",\"Author\":\"tests\",\
         \"GitHubRepository\":\"none\"}},\"capabilities\":{{{},\"executor_input_formats\":[\"chat-completions\"],\
         \"executor_output_formats\":[\"chat-completions\"]}}}}",
        words.join(",")
    )
}

fn mark(request: &str) -> String {
    let body = decode64(member(request, "Body"));
    if body.first() != Some(&b'{') {
        return "{}".into();
    }
    let mut marked = format!("{{\"{}\":1,", settings().marker).into_bytes();
    marked.extend_from_slice(&body[1..]);
    format!("{{\"Body\":\"{}\"}}", encode64(&marked))
}

fn chunk(delta: &str, finish: &str) -> String {
    let text = format!(
        "{{\"id\":\"r\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"rusty\",\
         \"choices\":[{{\"index\":0,\"delta\":{},\"finish_reason\":{}}}]}}",
        delta, finish
    );
    format!("{{\"Payload\":\"{}\"}}", encode64(text.as_bytes()))
}

fn stream() -> String {
    let chunks = [
        chunk("{\"role\":\"assistant\",\"content\":\"\"}", "null"),
        chunk("{\"content\":\"rust\"}", "null"),
        chunk("{}", "\"stop\""),
    ];
    format!("{{\"headers\":{{\"Content-Type\":[\"text/event-stream\"]}},\"chunks\":[{}]}}", chunks.join(","))
}

fn whole() -> String {
    let text = "{\"id\":\"r\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"rusty\",\"choices\":[{\"index\":0,\
                \"message\":{\"role\":\"assistant\",\"content\":\"rust\"},\"finish_reason\":\"stop\"}],\
                \"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2,\"total_tokens\":5}}";
    format!("{{\"Payload\":\"{}\"}}", encode64(text.as_bytes()))
}

fn answer(method: &str, request: &str) -> Option<String> {
    Some(match method {
        "plugin.register" | "plugin.reconfigure" => register(request),
        "request.normalize" | "response.intercept_after" | "response.intercept_stream_chunk" => mark(request),
        "request.intercept_before" => mark(request),
        "request.intercept_after" | "request.complete" | "usage.handle" => "{}".into(),
        "executor.identifier" => format!("{{\"identifier\":\"{}\"}}", settings().provider),
        "executor.execute" => whole(),
        "executor.execute_stream" => stream(),
        "executor.count_tokens" => format!("{{\"Payload\":\"{}\"}}", encode64(b"{\"input_tokens\":7}")),
        "model.route" => {
            let mine = member(request, "RequestedModel") == settings().provider;
            if mine { "{\"Handled\":true,\"TargetKind\":\"self\"}".into() } else { "{}".into() }
        }
        _ => return None,
    })
}

unsafe extern "C" fn call(method: *const c_char, request: *const u8, len: usize, out: *mut Buffer) -> c_int {
    let method = CStr::from_ptr(method).to_string_lossy();
    let bytes = if request.is_null() { &[][..] } else { std::slice::from_raw_parts(request, len) };
    let reply = match answer(&method, &String::from_utf8_lossy(bytes)) {
        Some(result) => format!("{{\"ok\":true,\"result\":{}}}", result),
        None => "{\"ok\":false,\"error\":{\"code\":\"unknown_method\",\"message\":\"unknown method\"}}".into(),
    };
    let mut bytes = reply.into_bytes().into_boxed_slice();
    (*out).ptr = bytes.as_mut_ptr().cast();
    (*out).len = bytes.len();
    std::mem::forget(bytes);
    0
}

unsafe extern "C" fn free_buffer(ptr: *mut c_void, len: usize) {
    if !ptr.is_null() {
        drop(Vec::from_raw_parts(ptr.cast::<u8>(), len, len));
    }
}

unsafe extern "C" fn shutdown() {
    println!("rusty was shut down");
}

#[no_mangle]
pub unsafe extern "C" fn cliproxy_plugin_init(host: *const HostApi, plugin: *mut PluginApi) -> c_int {
    if host.is_null() || plugin.is_null() || (*host).abi_version != 1 {
        return 1;
    }
    *plugin = PluginApi {
        abi_version: 1,
        call: Some(call),
        free_buffer: Some(free_buffer),
        shutdown: Some(shutdown),
    };
    0
}

//! What a plugin in Rust needs besides the contract: JSON, base64, dispatch of methods, calls of the host.
//!
//! Make this folder a path dependency of your plugin, or copy this file into it as a module; it needs nothing but the
//! standard library. A whole plugin, whose crate has `crate-type = ["cdylib"]`:
//!
//! ```
//! use cpa_plugin::{init, object, Answer, Call, Failure, HostApi, PluginApi, Registration, Route};
//!
//! fn register(_: &Call) -> Answer {
//!     Registration { name: "shout", version: "1.0.0", author: "me", repository: "https://example.org/shout",
//!                    capabilities: r#"{"request_normalizer":true}"#, ..Registration::default() }.answer()
//! }
//!
//! fn normalize(call: &Call) -> Answer {
//!     let request = call.json().ok_or(Failure::new("invalid_request", "request is not a JSON object"))?;
//!     let body = request.bytes("Body").map_err(|_| Failure::new("invalid_request", "Body is not base64"))?;
//!     Ok(object(|o| o.bytes("Body", &body.unwrap_or_default())))
//! }
//!
//! static ROUTES: [Route; 3] =
//!     [("plugin.register", register), ("plugin.reconfigure", register), ("request.normalize", normalize)];
//!
//! #[no_mangle]
//! pub unsafe extern "C" fn cliproxy_plugin_init(host: *const HostApi, plugin: *mut PluginApi) -> i32 {
//!     init(host, plugin, &ROUTES, None)
//! }
//! ```
//!
//! MEMORY. Requests belong to the host and live until the handler returns: copy what you keep. Answers are handed to the
//! host, which gives them back through `free_buffer`; they are overwritten then, since they may hold secrets.
//!
//! PANICS do not cross the boundary: the call fails, and the log says where it was. It does not say the panic's message,
//! because that may quote a client's text. Build with `panic = "unwind"`, which is the default.
//!
//! INPUT. Requests may be anything: the reader takes exactly one JSON value nested at most [`MAX_DEPTH`] deep.
//!
//! THREADS. Handlers run on any thread, many at a time: what you keep between calls needs atomics or a lock.

#![allow(dead_code)] // no plugin needs all of it, which the compiler notices when this is a module

use std::borrow::Cow;
use std::ffi::{c_char, c_int, c_void, CStr, CString};
use std::fmt::Write as _;
use std::ops::Range;
use std::panic::{catch_unwind, set_hook, AssertUnwindSafe};
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Once, OnceLock};

/// Of the binary interface.
pub const ABI_VERSION: u32 = 1;
/// The newest version of the methods' messages that this helper was written for.
pub const SCHEMA_VERSION: u32 = 3;
/// Deeper JSON is refused: the reader calls itself once per level, on a stack that belongs to somebody else.
pub const MAX_DEPTH: usize = 128;

// --- the contract ----------------------------------------------------------------------------------------------------

/// Bytes that one side hands to the other.
#[repr(C)]
pub struct Buffer {
    pub ptr: *mut c_void,
    pub len: usize,
}

/// What the host offers. It stays where it is for as long as the plugin is loaded.
#[repr(C)]
pub struct HostApi {
    pub abi_version: u32,
    pub host_ctx: *mut c_void,
    pub call: Option<unsafe extern "C" fn(*mut c_void, *const c_char, *const u8, usize, *mut Buffer) -> c_int>,
    pub free_buffer: Option<unsafe extern "C" fn(*mut c_void, usize)>,
}

/// What the plugin offers.
#[repr(C)]
pub struct PluginApi {
    pub abi_version: u32,
    pub call: Option<unsafe extern "C" fn(*const c_char, *const u8, usize, *mut Buffer) -> c_int>,
    pub free_buffer: Option<unsafe extern "C" fn(*mut c_void, usize)>,
    pub shutdown: Option<unsafe extern "C" fn()>,
}

// --- calls of the plugin ---------------------------------------------------------------------------------------------

/// One call of the host.
pub struct Call<'a> {
    pub method: &'a str,
    /// As it came: JSON, unless the host is broken.
    pub request: &'a [u8],
}

impl<'a> Call<'a> {
    /// The request, when it is a JSON object.
    pub fn json(&self) -> Option<Value<'a>> {
        parse(self.text()?).filter(|value| matches!(value.data, Data::Object(_)))
    }

    /// The request, when it is UTF-8; see [`members`].
    pub fn text(&self) -> Option<&'a str> {
        std::str::from_utf8(self.request).ok()
    }
}

/// Why a call failed, in words for operators or, from executors, for clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub code: &'static str,
    pub message: String,
    /// 0 leaves the status to the host.
    pub http_status: u16,
}

impl Failure {
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), http_status: 0 }
    }

    fn envelope(&self) -> String {
        object(|o| {
            o.flag("ok", false);
            o.object("error", |o| {
                o.text("code", self.code);
                o.text("message", &self.message);
                if self.http_status > 0 {
                    o.integer("http_status", self.http_status.into());
                }
            });
        })
    }
}

/// The result as JSON, mostly made by [`object`]; or why there is none.
pub type Answer = Result<String, Failure>;
/// Answers one method, on any thread, many calls at a time.
pub type Handler = fn(&Call) -> Answer;
/// A method and what answers it.
pub type Route = (&'static str, Handler);

/// What a plugin says of itself. `config_fields` and `capabilities` are JSON.
pub struct Registration {
    pub name: &'static str,
    pub version: &'static str,
    pub author: &'static str,
    pub repository: &'static str,
    pub logo: &'static str,
    pub schema_version: u32,
    pub config_fields: &'static str,
    pub capabilities: &'static str,
}

impl Default for Registration {
    fn default() -> Self {
        let none = "";
        Self {
            name: none,
            version: none,
            author: none,
            repository: none,
            logo: none,
            schema_version: SCHEMA_VERSION,
            config_fields: "[]",
            capabilities: "{}",
        }
    }
}

impl Registration {
    /// The answer to `plugin.register` and `plugin.reconfigure`.
    pub fn answer(&self) -> Answer {
        Ok(object(|o| {
            o.integer("schema_version", self.schema_version.into());
            o.object("metadata", |o| {
                o.text("Name", self.name);
                o.text("Version", self.version);
                o.text("Author", self.author);
                o.text("GitHubRepository", self.repository);
                o.text("Logo", self.logo);
                o.json("ConfigFields", self.config_fields);
            });
            o.json("capabilities", self.capabilities);
        }))
    }
}

struct Plugin {
    routes: &'static [Route],
    shutdown: Option<fn()>,
}

static PLUGIN: OnceLock<Plugin> = OnceLock::new();
static HOST: AtomicPtr<HostApi> = AtomicPtr::new(ptr::null_mut());

/// Fills the plugin's table; all that `cliproxy_plugin_init` has to do. Methods without a route are answered with
/// `unknown_method`.
///
/// # Safety
/// Both pointers come from the host. `host` has to stay valid, `plugin` may be NULL.
pub unsafe fn init(
    host: *const HostApi,
    plugin: *mut PluginApi,
    routes: &'static [Route],
    shutdown: Option<fn()>,
) -> c_int {
    if plugin.is_null() {
        return 1;
    }
    HOST.store(host.cast_mut(), Ordering::Release);
    let _ = PLUGIN.set(Plugin { routes, shutdown });
    plugin.write(PluginApi {
        abi_version: ABI_VERSION,
        call: Some(called),
        free_buffer: Some(free_buffer),
        shutdown: shutdown.is_some().then_some(shut_down as unsafe extern "C" fn()),
    });
    0
}

unsafe extern "C" fn called(method: *const c_char, request: *const u8, len: usize, out: *mut Buffer) -> c_int {
    quiet_panics();
    let method = if method.is_null() { None } else { Some(CStr::from_ptr(method)) };
    let request = if request.is_null() || len == 0 { &[] } else { slice::from_raw_parts(request, len) };
    let (status, reply) = reply(PLUGIN.get().map_or(&[], |plugin| plugin.routes), method, request);
    if out.is_null() {
        return 1;
    }
    let reply = Box::leak(reply.into_bytes().into_boxed_slice());
    out.write(Buffer { ptr: reply.as_mut_ptr().cast(), len: reply.len() });
    status
}

/// The envelope that answers a call, and what the host is told beside it.
pub fn reply(routes: &[Route], method: Option<&CStr>, request: &[u8]) -> (c_int, String) {
    let failed = |code, message: &str| Failure::new(code, message).envelope();
    let Some(method) = method else {
        return (1, failed("invalid_method", "method is required"));
    };
    let Ok(method) = method.to_str() else {
        return (1, failed("invalid_method", "method is not utf-8"));
    };
    let Some((_, handle)) = routes.iter().find(|(name, _)| *name == method) else {
        return (0, failed("unknown_method", "unknown method"));
    };
    match catch_unwind(AssertUnwindSafe(|| handle(&Call { method, request }))) {
        Ok(Ok(result)) => (0, format!("{{\"ok\":true,\"result\":{}}}", if result.is_empty() { "{}" } else { &result })),
        Ok(Err(failure)) => (0, failure.envelope()),
        Err(_) => (1, failed("plugin_error", "the plugin panicked")),
    }
}

/// Panics are told with their place only: their messages may quote what clients sent, and stderr goes to the host's log.
fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        set_hook(Box::new(|info| {
            let place = info.location().map_or(String::new(), |at| format!(" at {}:{}", at.file(), at.line()));
            eprintln!("the plugin panicked{place}");
        }));
    });
}

unsafe extern "C" fn free_buffer(ptr: *mut c_void, len: usize) {
    if !ptr.is_null() {
        let bytes = slice::from_raw_parts_mut(ptr.cast::<u8>(), len);
        wipe(bytes);
        drop(Box::from_raw(bytes as *mut [u8]));
    }
}

unsafe extern "C" fn shut_down() {
    if let Some(shutdown) = PLUGIN.get().and_then(|plugin| plugin.shutdown) {
        let _ = catch_unwind(shutdown);
    }
}

/// Overwrites bytes, also where the compiler sees that nobody reads them again.
pub fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    std::hint::black_box(bytes);
}

// --- calls of the host -----------------------------------------------------------------------------------------------

/// Asks the host and waits for its answer, whose result (JSON) is returned; or the host's words of why there is none.
///
/// `request` is a JSON object. Give it the call's `host_callback_id` ([`Object::scope`]), so that what the host does
/// belongs to the client's request and ends with it.
pub fn host_call(method: &str, request: &str) -> Result<String, String> {
    let host = HOST.load(Ordering::Acquire);
    let method = CString::new(method).map_err(|_| "the method has a NUL in it".to_owned())?;
    // SAFETY: the host keeps its table for as long as it may be called, and fills a buffer that stays ours to free.
    let (status, answer) = unsafe {
        let Some(host) = host.as_ref() else {
            return Err("the host cannot be called".to_owned());
        };
        let (Some(call), Some(free)) = (host.call, host.free_buffer) else {
            return Err("the host cannot be called".to_owned());
        };
        let mut out = Buffer { ptr: ptr::null_mut(), len: 0 };
        let status = call(host.host_ctx, method.as_ptr(), request.as_ptr(), request.len(), &mut out);
        let mut answer = Vec::new();
        if !out.ptr.is_null() {
            answer.extend_from_slice(slice::from_raw_parts(out.ptr.cast::<u8>(), out.len));
            free(out.ptr, out.len);
        }
        (status, answer)
    };
    if status != 0 {
        return Err(format!("the host refused the call with {status}"));
    }
    let text = String::from_utf8(answer).map_err(|_| "the host's answer is not UTF-8".to_owned())?;
    let envelope = parse(&text).ok_or_else(|| "the host's answer is not JSON".to_owned())?;
    if envelope.flag("ok") {
        return Ok(envelope.get("result").map_or("null", |result| &text[result.at.clone()]).to_owned());
    }
    let message = envelope.get("error").and_then(|error| error.text("message"));
    Err(message.filter(|said| !said.is_empty()).unwrap_or("the host call failed").to_owned())
}

// --- reading JSON ----------------------------------------------------------------------------------------------------

/// One JSON value of a document that it borrows from.
#[derive(Debug, Clone, PartialEq)]
pub struct Value<'a> {
    /// Where it stands in the document, in bytes, quotes and brackets included.
    pub at: Range<usize>,
    pub data: Data<'a>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Data<'a> {
    Null,
    Bool(bool),
    /// As it is written.
    Number(&'a str),
    /// Without quotes and escapes; half of a surrogate pair becomes U+FFFD.
    Text(Cow<'a, str>),
    List(Vec<Value<'a>>),
    Object(Vec<Member<'a>>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Member<'a> {
    pub name: Cow<'a, str>,
    pub name_at: Range<usize>,
    pub value: Value<'a>,
}

/// A byte field that is not base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotBase64;

impl<'a> Value<'a> {
    /// A member of an object, upper and lower case being the same; of several the last one, as the host reads it.
    pub fn get(&self, name: &str) -> Option<&Value<'a>> {
        self.members().iter().rev().find(|member| member.name.eq_ignore_ascii_case(name)).map(|member| &member.value)
    }

    /// A member that is a string.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_text()
    }

    /// A member that is `true`.
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), Some(Value { data: Data::Bool(true), .. }))
    }

    /// A member that is a whole number.
    pub fn integer(&self, name: &str) -> Option<i64> {
        match self.get(name)?.data {
            Data::Number(digits) => digits.parse().ok(),
            _ => None,
        }
    }

    /// A byte field. Absent and null are None.
    pub fn bytes(&self, name: &str) -> Result<Option<Vec<u8>>, NotBase64> {
        match self.get(name).map(|value| &value.data) {
            None | Some(Data::Null) => Ok(None),
            Some(Data::Text(encoded)) => base64_decode(encoded).map(Some).ok_or(NotBase64),
            Some(_) => Err(NotBase64),
        }
    }

    pub fn as_text(&self) -> Option<&str> {
        match &self.data {
            Data::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn is_null(&self) -> bool {
        self.data == Data::Null
    }

    /// What is in a list; nothing is in anything else.
    pub fn items(&self) -> &[Value<'a>] {
        match &self.data {
            Data::List(items) => items,
            _ => &[],
        }
    }

    /// What is in an object; nothing is in anything else.
    pub fn members(&self) -> &[Member<'a>] {
        match &self.data {
            Data::Object(members) => members,
            _ => &[],
        }
    }
}

/// One JSON value and nothing behind it, or None.
pub fn parse(document: &str) -> Option<Value<'_>> {
    let mut reader = Reader { text: document, at: 0 };
    let value = reader.value(0)?;
    reader.blanks();
    (reader.at == document.len()).then_some(value)
}

/// The members of an object one after the other, with their values as they stand in `document`: for those who need the
/// first few of a large request. Ends early when the document turns out not to be an object.
pub fn members(document: &str) -> impl Iterator<Item = (Cow<'_, str>, &str)> {
    let mut reader = Reader { text: document, at: 0 };
    let mut more = reader.open(b'{') && !reader.next_is(b'}');
    std::iter::from_fn(move || {
        if !more {
            return None;
        }
        more = false;
        reader.blanks();
        let name = reader.string()?;
        reader.blanks();
        reader.take(b':')?;
        reader.blanks();
        let from = reader.at;
        reader.skip(1)?;
        let value = &document[from..reader.at];
        more = reader.next_is(b',');
        Some((name, value))
    })
}

/// The text of a JSON string with its quotes, or None.
pub fn unquoted(json: &str) -> Option<Cow<'_, str>> {
    let mut reader = Reader { text: json, at: 0 };
    let text = reader.string()?;
    (reader.at == json.len()).then_some(text)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn open(&mut self, bracket: u8) -> bool {
        self.blanks();
        self.take(bracket).is_some()
    }

    /// Whether `byte` comes next, which is read then.
    fn next_is(&mut self, byte: u8) -> bool {
        self.blanks();
        self.take(byte).is_some()
    }

    fn value(&mut self, depth: usize) -> Option<Value<'a>> {
        self.blanks();
        if depth >= MAX_DEPTH {
            return None;
        }
        let from = self.at;
        let data = match self.peek()? {
            b'{' => Data::Object(self.object(depth)?),
            b'[' => Data::List(self.list(depth)?),
            b'"' => Data::Text(self.string()?),
            b't' => self.word("true", Data::Bool(true))?,
            b'f' => self.word("false", Data::Bool(false))?,
            b'n' => self.word("null", Data::Null)?,
            _ => {
                self.number()?;
                Data::Number(&self.text[from..self.at])
            }
        };
        Some(Value { at: from..self.at, data })
    }

    fn object(&mut self, depth: usize) -> Option<Vec<Member<'a>>> {
        let mut members = Vec::new();
        self.take(b'{')?;
        if self.next_is(b'}') {
            return Some(members);
        }
        loop {
            self.blanks();
            let from = self.at;
            let name = self.string()?;
            let name_at = from..self.at;
            self.blanks();
            self.take(b':')?;
            members.push(Member { name, name_at, value: self.value(depth + 1)? });
            if self.next_is(b'}') {
                return Some(members);
            }
            self.take(b',')?;
        }
    }

    fn list(&mut self, depth: usize) -> Option<Vec<Value<'a>>> {
        let mut items = Vec::new();
        self.take(b'[')?;
        if self.next_is(b']') {
            return Some(items);
        }
        loop {
            items.push(self.value(depth + 1)?);
            if self.next_is(b']') {
                return Some(items);
            }
            self.take(b',')?;
        }
    }

    fn word(&mut self, word: &str, data: Data<'a>) -> Option<Data<'a>> {
        self.text[self.at..].starts_with(word).then(|| self.at += word.len())?;
        Some(data)
    }

    fn digits(&mut self) -> Option<()> {
        let from = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        (self.at > from).then_some(())
    }

    fn number(&mut self) -> Option<()> {
        let _ = self.take(b'-');
        if self.take(b'0').is_none() {
            self.digits()?;
        }
        if self.take(b'.').is_some() {
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(())
    }

    /// Moves to the next quote, backslash or control character.
    fn plain(&mut self) {
        let bytes = self.text.as_bytes();
        // Eight bytes at a time, by the usual trick: a byte b has its high bit set in (b - n) & !b when b < n.
        const ONES: u64 = 0x0101_0101_0101_0101;
        const HIGHS: u64 = 0x8080_8080_8080_8080;
        while let Some(eight) = bytes.get(self.at..self.at + 8) {
            let word = u64::from_le_bytes(eight.try_into().expect("eight bytes"));
            let zeros = |word: u64| word.wrapping_sub(ONES) & !word;
            let found =
                zeros(word ^ (ONES * 0x22)) | zeros(word ^ (ONES * 0x5C)) | (word.wrapping_sub(ONES * 0x20) & !word);
            if found & HIGHS != 0 {
                break;
            }
            self.at += 8;
        }
        while self.peek().is_some_and(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
            self.at += 1;
        }
    }

    fn string(&mut self) -> Option<Cow<'a, str>> {
        self.take(b'"')?;
        let from = self.at;
        self.plain();
        if self.take(b'"').is_some() {
            return Some(Cow::Borrowed(&self.text[from..self.at - 1]));
        }
        let mut made = String::with_capacity(2 * (self.at - from));
        made.push_str(&self.text[from..self.at]);
        loop {
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Some(Cow::Owned(made));
                }
                b'\\' => {
                    self.at += 1;
                    made.push(self.escape()?);
                }
                _ => {
                    let from = self.at;
                    self.plain();
                    if self.at == from {
                        return None; // a control character
                    }
                    made.push_str(&self.text[from..self.at]);
                }
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        let byte = self.peek()?;
        self.at += 1;
        Some(match byte {
            b'"' | b'\\' | b'/' => byte.into(),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.hex()?;
                if (0xD800..0xDC00).contains(&first) && self.text[self.at..].starts_with("\\u") {
                    let back = self.at;
                    self.at += 2;
                    let second = self.hex()?;
                    if (0xDC00..0xE000).contains(&second) {
                        return char::from_u32(0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00));
                    }
                    self.at = back;
                }
                char::from_u32(first).unwrap_or('\u{FFFD}')
            }
            _ => return None,
        })
    }

    fn hex(&mut self) -> Option<u32> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4)?;
        let mut value = 0;
        for digit in digits {
            value = value << 4 | char::from(*digit).to_digit(16)?;
        }
        self.at += 4;
        Some(value)
    }

    /// Past one value, without making anything of it.
    fn skip(&mut self, depth: usize) -> Option<()> {
        self.blanks();
        if depth >= MAX_DEPTH {
            return None;
        }
        let (opens, closes) = match self.peek()? {
            b'{' => (b'{', b'}'),
            b'[' => (b'[', b']'),
            b'"' => return self.skip_string(),
            _ => return self.value(depth).map(|_| ()),
        };
        self.take(opens)?;
        if self.next_is(closes) {
            return Some(());
        }
        loop {
            if opens == b'{' {
                self.blanks();
                self.skip_string()?;
                self.blanks();
                self.take(b':')?;
            }
            self.skip(depth + 1)?;
            if self.next_is(closes) {
                return Some(());
            }
            self.take(b',')?;
        }
    }

    fn skip_string(&mut self) -> Option<()> {
        self.take(b'"')?;
        loop {
            self.plain();
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Some(());
                }
                b'\\' => {
                    self.at += 1;
                    self.escape()?;
                }
                _ => return None,
            }
        }
    }
}

// --- writing JSON ----------------------------------------------------------------------------------------------------

/// A JSON object, written by `fill`.
pub fn object(fill: impl FnOnce(&mut Object)) -> String {
    let mut out = String::new();
    append_object(&mut out, fill);
    out
}

fn append_object(out: &mut String, fill: impl FnOnce(&mut Object)) {
    out.push('{');
    fill(&mut Object { out, comma: false });
    out.push('}');
}

fn append_list(out: &mut String, fill: impl FnOnce(&mut List)) {
    out.push('[');
    fill(&mut List { out, comma: false });
    out.push(']');
}

/// An object that is being written: one method per kind of member.
pub struct Object<'a> {
    out: &'a mut String,
    comma: bool,
}

impl Object<'_> {
    fn name(&mut self, name: &str) -> &mut String {
        if self.comma {
            self.out.push(',');
        }
        self.comma = true;
        append_quoted(self.out, name);
        self.out.push(':');
        self.out
    }

    pub fn text(&mut self, name: &str, value: &str) {
        append_quoted(self.name(name), value);
    }

    pub fn integer(&mut self, name: &str, value: i64) {
        let _ = write!(self.name(name), "{value}");
    }

    pub fn flag(&mut self, name: &str, value: bool) {
        self.name(name).push_str(if value { "true" } else { "false" });
    }

    /// A byte field: base64.
    pub fn bytes(&mut self, name: &str, value: &[u8]) {
        let out = self.name(name);
        out.push('"');
        base64_encode(out, value);
        out.push('"');
    }

    /// A value that is JSON already.
    pub fn json(&mut self, name: &str, value: &str) {
        self.name(name).push_str(value);
    }

    pub fn object(&mut self, name: &str, fill: impl FnOnce(&mut Object)) {
        append_object(self.name(name), fill);
    }

    pub fn list(&mut self, name: &str, fill: impl FnOnce(&mut List)) {
        append_list(self.name(name), fill);
    }

    /// A map of headers with one in it.
    pub fn header(&mut self, name: &str, header: &str, value: &str) {
        self.object(name, |o| o.list(header, |l| l.text(value)));
    }

    /// The scope of a call, for what is asked of the host while answering it.
    pub fn scope(&mut self, call: &Call) {
        let found = call.text().and_then(|text| members(text).find(|(name, _)| name == "host_callback_id"));
        // A scope of another type, which only a broken host gives, would fail the call that it is put into.
        if let Some((name, id)) = found.filter(|(_, id)| id.starts_with('"')) {
            self.json(&name, id);
        }
    }
}

/// A list that is being written.
pub struct List<'a> {
    out: &'a mut String,
    comma: bool,
}

impl List<'_> {
    fn next(&mut self) -> &mut String {
        if self.comma {
            self.out.push(',');
        }
        self.comma = true;
        self.out
    }

    pub fn text(&mut self, value: &str) {
        append_quoted(self.next(), value);
    }

    /// A value that is JSON already.
    pub fn json(&mut self, value: &str) {
        self.next().push_str(value);
    }

    pub fn object(&mut self, fill: impl FnOnce(&mut Object)) {
        append_object(self.next(), fill);
    }
}

/// A JSON string with its quotes.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    append_quoted(&mut out, text);
    out
}

pub fn append_quoted(out: &mut String, text: &str) {
    out.push('"');
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        let letter = match byte {
            b'"' | b'\\' => char::from(byte),
            b'\n' => 'n',
            b'\r' => 'r',
            b'\t' => 't',
            0..=0x1F => 'u',
            _ => continue,
        };
        out.push_str(&text[plain..at]);
        plain = at + 1;
        out.push('\\');
        out.push(letter);
        if letter == 'u' {
            let _ = write!(out, "{byte:04x}");
        }
    }
    out.push_str(&text[plain..]);
    out.push('"');
}

// --- base64 ----------------------------------------------------------------------------------------------------------

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const NONE: u8 = 0xFF;
const BASE64_VALUES: [u8; 256] = {
    let mut values = [NONE; 256];
    let mut at = 0;
    while at < 64 {
        values[BASE64[at] as usize] = at as u8;
        at += 1;
    }
    values
};

/// Appends `bytes` in the standard alphabet, with padding.
pub fn base64_encode(out: &mut String, bytes: &[u8]) {
    out.reserve(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let bits = u32::from(three[0]) << 16
            | u32::from(three.get(1).copied().unwrap_or(0)) << 8
            | u32::from(three.get(2).copied().unwrap_or(0));
        let mut four = [18, 12, 6, 0].map(|shift| BASE64[(bits >> shift & 63) as usize]);
        four[three.len() + 1..].fill(b'=');
        out.push_str(std::str::from_utf8(&four).expect("digits are ASCII"));
    }
}

/// The standard alphabet with padding; line breaks are skipped. None for everything else.
pub fn base64_decode(encoded: &str) -> Option<Vec<u8>> {
    let mut made = Vec::with_capacity(encoded.len() / 4 * 3 + 3);
    let (mut bits, mut digits, mut padding) = (0u32, 0usize, 0usize);
    for byte in encoded.bytes() {
        match (byte, BASE64_VALUES[byte as usize]) {
            (b'\r' | b'\n', _) => {}
            (b'=', _) => padding += 1,
            (_, NONE) => return None,
            (_, _) if padding > 0 => return None,
            (_, value) => {
                bits = bits << 6 | u32::from(value);
                digits += 1;
                if digits % 4 == 0 {
                    made.extend_from_slice(&bits.to_be_bytes()[1..]);
                }
            }
        }
    }
    match (digits % 4, padding) {
        (0, 0) => {}
        (2, 2) => made.push((bits >> 4) as u8),
        (3, 1) => made.extend_from_slice(&((bits >> 2) as u16).to_be_bytes()),
        _ => return None,
    }
    Some(made)
}

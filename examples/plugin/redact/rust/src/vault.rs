//! What one request has in it: its secrets, their placeholders, and what is held back of its streamed answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cpa_plugin::Value;

use crate::detect::Kind;
use crate::digest::hmac;
use crate::edit::{strings, Edits};
use crate::settings::Settings;
use crate::stream::Streams;

/// All placeholders begin with it. They are one word of letters, digits and `_`, so that they survive in code, in
/// addresses and in JSON, and so that models copy them as they are.
pub const PREFIX: &str = "REDACTED_";
/// Of the digest: enough that no two secrets of all a client's conversations meet.
const DIGITS: usize = 16;
/// Arguments of tools are JSON in a string; arguments within arguments are looked into as well, but not for ever.
const MAX_NESTED: usize = 4;
/// More requests than any host has under way: beyond it, somebody forgets to say that they are over.
const MAX_REQUESTS: usize = 100_000;

/// A text that is overwritten when it is dropped.
pub struct Secret(Vec<u8>);

impl Secret {
    pub fn new(text: &[u8]) -> Self {
        Self(text.to_vec())
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        cpa_plugin::wipe(&mut self.0);
    }
}

/// The secrets of one request.
#[derive(Default)]
pub struct Secrets {
    known: Vec<(String, Secret)>,
    at: HashMap<String, usize>,
    /// How many were found, a repeated one each time.
    pub found: usize,
}

impl Secrets {
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// `text` without its secrets; None when there are none.
    fn mask_text(&mut self, text: &[u8], settings: &Settings) -> Option<Vec<u8>> {
        let found = settings.detectors.find(text);
        if found.is_empty() {
            return None;
        }
        let mut out = Vec::with_capacity(text.len());
        let mut done = 0;
        for one in found {
            out.extend_from_slice(&text[done..one.at.start]);
            out.extend_from_slice(self.placeholder(one.kind, &text[one.at.clone()], &settings.key).as_bytes());
            done = one.at.end;
        }
        out.extend_from_slice(&text[done..]);
        Some(out)
    }

    fn placeholder(&mut self, kind: Kind, secret: &[u8], key: &[u8]) -> String {
        self.found += 1;
        let digest = hmac(key, &[kind.label().as_bytes(), b"\0", secret]);
        let digits: String = digest.iter().take(DIGITS / 2).map(|byte| format!("{byte:02x}")).collect();
        let made = format!("{PREFIX}{}_{digits}", kind.label());
        if !self.at.contains_key(&made) {
            self.at.insert(made.clone(), self.known.len());
            self.known.push((made.clone(), Secret::new(secret)));
        }
        made
    }

    /// A request's body without secrets; None when there are none. JSON stays JSON, and what is not masked stays as it is
    /// written. What is no JSON is looked at as it is.
    pub fn mask(&mut self, body: &[u8], settings: &Settings) -> Option<Vec<u8>> {
        let text = std::str::from_utf8(body).ok();
        match text.and_then(|text| Some((text, cpa_plugin::parse(text)?))) {
            Some((text, document)) => self.mask_document(text, &document, settings, 0).map(String::into_bytes),
            None => self.mask_text(body, settings),
        }
    }

    fn mask_document(&mut self, text: &str, document: &Value, settings: &Settings, depth: usize) -> Option<String> {
        let mut edits = Edits::default();
        strings(document, "", &mut edits, &mut |name, text| {
            if is_arguments(name) && depth < MAX_NESTED && text.trim_start().starts_with('{') {
                if let Some(inner) = cpa_plugin::parse(text) {
                    return self.mask_document(text, &inner, settings, depth + 1);
                }
            }
            self.mask_text(text.as_bytes(), settings).map(|made| String::from_utf8_lossy(&made).into_owned())
        });
        (!edits.is_empty()).then(|| edits.apply(text))
    }

    /// The placeholder that begins at `text`, with its secret.
    fn begins(&self, text: &[u8]) -> Option<(&str, &Secret)> {
        // A placeholder ends with its digits: what could be one is looked up, not compared with each.
        let word = text.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
        let word = std::str::from_utf8(&text[..word]).ok()?;
        let known = |len: usize| word.get(..len).and_then(|name| self.at.get(name)).map(|at| &self.known[*at]);
        LENGTHS.iter().find_map(|len| known(*len)).map(|(name, secret)| (name.as_str(), secret))
    }

    /// `text` with secrets in the place of their placeholders.
    ///
    /// Args: `quoted`: the text is JSON, and so the secrets are written as in a JSON string. `last`: nothing follows.
    /// Returns the text, and how many bytes at its end are kept back, because a placeholder may begin there.
    pub fn restore(&self, text: &str, quoted: bool, last: bool) -> (String, usize) {
        let mut out = String::with_capacity(text.len());
        let mut done = 0;
        let mut from = 0;
        while let Some(found) = text[from..].find(PREFIX).map(|at| from + at) {
            from = found + PREFIX.len();
            if let Some((name, secret)) = self.begins(&text.as_bytes()[found..]) {
                out.push_str(&text[done..found]);
                push_secret(&mut out, secret, quoted);
                done = found + name.len();
                from = done;
            }
        }
        let kept = if last { 0 } else { self.unfinished(&text[done..]) };
        out.push_str(&text[done..text.len() - kept]);
        (out, kept)
    }

    /// Length of the longest end of `text` that a placeholder begins with.
    fn unfinished(&self, text: &str) -> usize {
        let bytes = text.as_bytes();
        let first = bytes.len().saturating_sub(LENGTHS[0] - 1);
        let is_start = |at: &usize| {
            let end = &bytes[*at..];
            bytes[*at] == PREFIX.as_bytes()[0]
                && self.known.iter().any(|(name, _)| name.len() > end.len() && name.as_bytes().starts_with(end))
        };
        (first..bytes.len()).find(is_start).map_or(0, |at| bytes.len() - at)
    }

    /// `body`, an answer or part of one, with its secrets; None when there is no placeholder in it.
    pub fn restore_body(&self, body: &str, tools: bool) -> Option<String> {
        if !body.contains(PREFIX) {
            return None;
        }
        let Some(document) = cpa_plugin::parse(body) else {
            return Some(self.restore(body, false, true).0);
        };
        let mut edits = Edits::default();
        self.restore_strings(&document, tools, &mut edits);
        (!edits.is_empty()).then(|| edits.apply(body))
    }

    /// Restores all strings of `value`, in a document that `edits` are for.
    pub fn restore_strings(&self, value: &Value, tools: bool, edits: &mut Edits) {
        if !tools && is_tool(value) {
            return;
        }
        match &value.data {
            cpa_plugin::Data::Object(members) => {
                for member in members {
                    if let Some(changed) = self.restored(&member.name, false) {
                        edits.replace(&member.name_at, cpa_plugin::quoted(&changed));
                    }
                    let arguments = is_arguments(&member.name);
                    match member.value.as_text() {
                        Some(_) if arguments && !tools => {}
                        Some(text) => {
                            if let Some(changed) = self.restored(text, arguments) {
                                edits.replace(&member.value.at, cpa_plugin::quoted(&changed));
                            }
                        }
                        None => self.restore_strings(&member.value, tools, edits),
                    }
                }
            }
            cpa_plugin::Data::List(items) => items.iter().for_each(|item| self.restore_strings(item, tools, edits)),
            cpa_plugin::Data::Text(text) => {
                if let Some(changed) = self.restored(text, false) {
                    edits.replace(&value.at, cpa_plugin::quoted(&changed));
                }
            }
            _ => {}
        }
    }

    fn restored(&self, text: &str, quoted: bool) -> Option<String> {
        text.contains(PREFIX).then(|| self.restore(text, quoted, true).0).filter(|made| made != text)
    }
}

/// Lengths that placeholders have, the longest first.
const LENGTHS: [usize; 6] = [
    PREFIX.len() + "PRIVATE_KEY".len() + 1 + DIGITS,
    PREFIX.len() + "API_KEY".len() + 1 + DIGITS, // and AWS_KEY
    PREFIX.len() + "CUSTOM".len() + 1 + DIGITS,
    PREFIX.len() + "EMAIL".len() + 1 + DIGITS,
    PREFIX.len() + "CARD".len() + 1 + DIGITS,
    PREFIX.len() + "JWT".len() + 1 + DIGITS,
];

/// Members whose strings are JSON themselves: what tools of Chat Completions, Responses and Claude's streams are called
/// with.
pub fn is_arguments(name: &str) -> bool {
    matches!(name, "arguments" | "partial_json")
}

/// An object that calls a tool.
fn is_tool(value: &Value) -> bool {
    let kinds = ["tool_use", "function_call", "custom_tool_call", "mcp_call", "server_tool_use"];
    value.text("type").is_some_and(|kind| kinds.contains(&kind))
        || value.get("functionCall").is_some()
        || (value.get("function").is_some() && value.get("id").is_some())
}

fn push_secret(out: &mut String, secret: &Secret, quoted: bool) {
    let text = String::from_utf8_lossy(secret.bytes());
    if quoted {
        let text = cpa_plugin::quoted(&text);
        out.push_str(&text[1..text.len() - 1]);
    } else {
        out.push_str(&text);
    }
}

/// One request between its arrival and its end.
#[derive(Default)]
pub struct Exchange {
    pub secrets: Secrets,
    pub streams: Streams,
}

/// All requests that have secrets in them, by their ids.
#[derive(Default)]
pub struct Vault {
    open: Mutex<Option<HashMap<String, Arc<Mutex<Exchange>>>>>,
}

impl Vault {
    pub const fn new() -> Self {
        Self { open: Mutex::new(None) }
    }

    /// Keeps an exchange. False when there are too many.
    pub fn keep(&self, id: &str, exchange: Exchange) -> bool {
        let mut open = lock(&self.open);
        let open = open.get_or_insert_default();
        if open.len() >= MAX_REQUESTS && !open.contains_key(id) {
            return false;
        }
        open.insert(id.to_owned(), Arc::new(Mutex::new(exchange)));
        true
    }

    pub fn get(&self, id: &str) -> Option<Arc<Mutex<Exchange>>> {
        lock(&self.open).as_ref()?.get(id).cloned()
    }

    /// Forgets an exchange, which is overwritten as soon as nobody works on it any more. How many are left.
    pub fn forget(&self, id: &str) -> (Option<Arc<Mutex<Exchange>>>, usize) {
        let mut open = lock(&self.open);
        let gone = open.as_mut().and_then(|open| open.remove(id));
        (gone, open.as_ref().map_or(0, HashMap::len))
    }

    pub fn clear(&self) {
        *lock(&self.open) = None;
    }
}

/// Also after a panic: it may have been in the middle of a change, which costs one answer at most.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AKIAIOSFODNN7EXAMPLE";

    fn settings(more: &str) -> Settings {
        Settings::parse(&format!("key: 0123456789abcdef\n{more}")).unwrap()
    }

    fn masked(body: &str) -> (Secrets, Option<String>) {
        let mut secrets = Secrets::default();
        let made = secrets.mask(body.as_bytes(), &settings("literals: ['say \"hi\"']"));
        (secrets, made.map(|made| String::from_utf8(made).unwrap()))
    }

    #[test]
    fn bodies_are_masked_where_secrets_are_and_restored() {
        for body in [
            format!(r#"{{"a" : "x {KEY} y", "b":[1.0,"{KEY}",null] , "{KEY}":{{"c":"\u00fc"}}}}"#),
            format!(r#"{{"arguments":"{{\"k\": \"{KEY} say \\\"hi\\\"\"}}"}}"#),
            format!(r#"{{"arguments":"no JSON {KEY}"}}"#),
            format!("no JSON {KEY}\n"),
            format!("\"{KEY}\""),
        ] {
            let (secrets, made) = masked(&body);
            let made = made.unwrap();
            assert!(!made.contains(KEY) && !made.contains("hi"), "{made}");
            assert_eq!(cpa_plugin::parse(&made).is_some(), cpa_plugin::parse(&body).is_some());
            assert_eq!(secrets.restore_body(&made, true).unwrap(), body);
        }
    }

    #[test]
    fn other_bodies_stay() {
        for body in ["", "{}", r#"{"a":"nothing"}"#, "text", "{\"a\":", r#"{"arguments":"{\"a\":1}"}"#] {
            let (secrets, made) = masked(body);
            assert_eq!((made, secrets.len()), (None, 0), "{body}");
        }
        let mut secrets = Secrets::default();
        assert_eq!(secrets.mask(b"\xff\xfe", &settings("")), None);
        let made = secrets.mask(&[b"\xff ", KEY.as_bytes(), b" \xfe"].concat(), &settings("")).unwrap();
        assert!(made.starts_with(b"\xff REDACTED_AWS_KEY_") && made.ends_with(b" \xfe"));
    }

    #[test]
    fn placeholders_depend_on_secret_and_key_only() {
        let name = |body: &str, settings: &Settings| {
            let mut secrets = Secrets::default();
            secrets.mask(body.as_bytes(), settings).unwrap();
            secrets.known[0].0.clone()
        };
        let one = name(&format!("a {KEY} {KEY}"), &settings(""));
        assert_eq!(one, name(&format!("b ({KEY})"), &settings("tools: false")));
        assert_ne!(one, name("AKIAIOSFODNN7EXAMPLF", &settings("")));
        assert_ne!(one, name(KEY, &Settings::parse("key: 0123456789abcdeF").unwrap()));
        assert_eq!(one.len(), "REDACTED_AWS_KEY_".len() + DIGITS);
    }

    #[test]
    fn every_kind_has_a_length_that_is_looked_for() {
        for kind in Kind::BUILT_IN.into_iter().chain([Kind::Custom]) {
            assert!(LENGTHS.contains(&(PREFIX.len() + kind.label().len() + 1 + DIGITS)), "{kind:?}");
        }
        assert!(LENGTHS.is_sorted_by(|one, next| one > next));
    }

    #[test]
    fn placeholders_of_others_stay() {
        let (secrets, made) = masked(KEY);
        let mut other = made.unwrap();
        other.pop();
        for body in [other.clone(), format!("\"{other}-\""), "REDACTED_AWS_KEY_0000000000000000".to_owned()] {
            assert!(secrets.restore_body(&body, true).is_none_or(|made| made == body), "{body}");
        }
    }

    #[test]
    fn tools_may_be_left_out() {
        let (secrets, made) = masked(KEY);
        let name = made.unwrap();
        for call in [
            format!(r#"{{"type":"tool_use","input":{{"a":"{name}"}}}}"#),
            format!(r#"{{"id":"c","type":"function","function":{{"name":"f","arguments":"{{\"a\":\"{name}\"}}"}}}}"#),
            format!(r#"{{"type":"function_call","arguments":"{name}"}}"#),
            format!(r#"{{"type":"custom_tool_call","input":"{name}"}}"#),
            format!(r#"{{"functionCall":{{"args":{{"a":"{name}"}}}}}}"#),
        ] {
            let body = format!(r#"[{{"text":"{name}"}},{call}]"#);
            let expected = format!(r#"[{{"text":"{KEY}"}},{call}]"#);
            assert_eq!(secrets.restore_body(&body, false), Some(expected));
            assert_eq!(secrets.restore_body(&body, true), Some(body.replace(&name, KEY)));
        }
    }

    #[test]
    fn exchanges_are_forgotten() {
        let vault = Vault::new();
        let (secrets, _) = masked(KEY);
        assert!(vault.keep("a", Exchange { secrets, ..Exchange::default() }));
        assert_eq!(lock(&vault.get("a").unwrap()).secrets.len(), 1);
        assert!(vault.get("b").is_none());
        assert!(vault.keep("b", Exchange::default()));
        let (gone, open) = vault.forget("a");
        assert_eq!((gone.is_some(), open), (true, 1));
        assert!(vault.get("a").is_none() && vault.forget("a").0.is_none());
        vault.clear();
        assert!(vault.get("b").is_none());
    }
}

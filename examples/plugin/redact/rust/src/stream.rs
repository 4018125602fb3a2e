//! Streamed answers: placeholders are put back although they come in pieces.
//!
//! Each text that a stream carries piece by piece (an answer, its thoughts, the arguments of each tool call) is a
//! *channel*. Of a channel, only what may be the beginning of a placeholder of this very request is held back, until the
//! next piece or until the event that ends it. Events are changed where their strings are and stay as they came
//! otherwise; what is held back at the end goes out as one more event of the same kind, in front of the one that ends it.

use cpa_plugin::{parse, quoted, Data, Value};

use crate::edit::Edits;
use crate::vault::Secrets;

/// An event of a Responses stream that is cut over chunks is put together again up to this size.
const MAX_PARTIAL: usize = 16 << 20;
/// Texts of one answer that hold something back at a time: a hundred tools may be called in parallel, but not more.
const MAX_CHANNELS: usize = 256;

/// What becomes of a chunk.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    Same,
    Body(String),
    /// All of it is held back.
    Drop,
}

/// The client's protocol, as the host names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Chat,
    Claude,
    Gemini,
    Responses,
    /// Placeholders that are whole within a string are put back.
    Other,
}

impl Format {
    pub fn named(name: &str) -> Self {
        match name {
            "openai" => Self::Chat,
            "claude" => Self::Claude,
            "gemini" => Self::Gemini,
            "openai-response" | "codex" => Self::Responses,
            _ => Self::Other,
        }
    }
}

/// One text that comes in pieces.
#[derive(Default)]
struct Channel {
    key: String,
    held: String,
    /// An event that carries a piece of it, in which the piece is `""` at `at`; and the lines in front of its data.
    json: String,
    at: usize,
    head: String,
}

/// The streamed answer of one request.
#[derive(Default)]
pub struct Streams {
    channels: Vec<Channel>,
    partial: String,
    /// How many events of ours a Responses stream has got: its events are numbered.
    added: i64,
}

/// Where a piece stands.
struct Piece<'v> {
    key: String,
    /// The text is JSON: arguments of a tool.
    arguments: bool,
    text: &'v Value<'v>,
    /// No more comes of this channel.
    last: bool,
}

/// What the functions for the formats work with.
struct Pass<'s> {
    streams: &'s mut Streams,
    secrets: &'s Secrets,
    tools: bool,
}

impl Streams {
    /// One chunk, framed as plugins get it.
    pub fn chunk(&mut self, secrets: &Secrets, format: Format, body: &str, tools: bool) -> Change {
        let quiet = self.partial.is_empty() && self.added == 0 && self.channels.is_empty();
        if quiet && !body.contains('R') && !body.contains("\\u00") {
            // Placeholders begin with an R: without one, nothing is put back and nothing begins. (Split Responses
            // events have to be seen from their beginning, but whatever of one has no R needs no change either.)
            if format != Format::Responses || body.ends_with('\n') {
                return Change::Same;
            }
        }
        let mut pass = Pass { streams: self, secrets, tools };
        match format {
            Format::Chat => pass.chat(body),
            Format::Gemini => pass.gemini(body),
            Format::Claude => pass.events(body, false),
            Format::Responses => pass.events(body, true),
            Format::Other => secrets.restore_body(body, tools).map_or(Change::Same, Change::Body),
        }
    }
}

fn change(before: &str, after: String) -> Change {
    if before == after {
        Change::Same
    } else {
        Change::Body(after)
    }
}

fn raw<'t>(text: &'t str, value: Option<&Value>) -> &'t str {
    value.map_or("", |value| &text[value.at.clone()])
}

impl Pass<'_> {
    /// Puts the secrets into a piece and leaves out what is held back; the channel is returned when something is.
    fn feed(&mut self, piece: &Piece, edits: &mut Edits) -> Option<&mut Channel> {
        let came = piece.text.as_text().unwrap_or_default();
        let channels = &mut self.streams.channels;
        let known = channels.iter().position(|channel| channel.key == piece.key);
        let mut channel = known.map_or_else(Channel::default, |at| channels.swap_remove(at));
        channel.held.push_str(came);
        let last = piece.last || channels.len() >= MAX_CHANNELS;
        let (out, kept) = self.secrets.restore(&channel.held, piece.arguments, last);
        channel.held.drain(..channel.held.len() - kept);
        if out != came {
            edits.replace(&piece.text.at, quoted(&out));
        }
        if kept == 0 {
            return None;
        }
        channel.key.clone_from(&piece.key);
        channels.push(channel);
        channels.last_mut()
    }

    /// As `feed`, in an event of which there may be another.
    fn feed_event(&mut self, piece: &Piece, data: &str, head: &str, edits: &mut Edits) {
        let place = piece.text.at.clone();
        if let Some(channel) = self.feed(piece, edits) {
            channel.json = format!("{}\"\"{}", &data[..place.start], &data[place.end..]);
            (channel.at, channel.head) = (place.start, head.to_owned());
        }
    }

    /// Ends channels: those that hold something, with the event of each in which that is missing.
    fn take(&mut self, which: impl Fn(&str) -> bool) -> Vec<Channel> {
        let all = std::mem::take(&mut self.streams.channels);
        let (ended, open): (Vec<_>, Vec<_>) = all.into_iter().partition(|channel| which(&channel.key));
        self.streams.channels = open;
        ended
    }

    fn restore(&self, value: &Value, edits: &mut Edits) {
        self.secrets.restore_strings(value, self.tools, edits);
    }

    // --- Chat Completions: one bare JSON object a chunk ---

    fn chat(&mut self, body: &str) -> Change {
        let Some(document) = parse(body) else {
            return change(body, self.secrets.restore(body, false, true).0);
        };
        let mut edits = Edits::default();
        let mut ended = Vec::new();
        let choices = document.get("choices").map_or(&[][..], |choices| choices.items());
        for choice in choices {
            let index = raw(body, choice.get("index"));
            let last = choice.text("finish_reason").is_some_and(|reason| !reason.is_empty());
            let delta = choice.get("delta").map_or(&[][..], |delta| delta.members());
            let text = choice.members().iter().filter(|member| member.name == "text");
            for member in delta.iter().chain(text) {
                let key = |more: &str| format!("{index}/{}/{more}", member.name);
                match (&*member.name, &member.value.data) {
                    ("role", _) => {}
                    (_, Data::Text(_)) => {
                        let piece = Piece { key: key(""), arguments: false, text: &member.value, last };
                        if let Some(channel) = self.feed(&piece, &mut edits) {
                            let place = if member.name == "text" {
                                ("\"text\":".to_owned(), "")
                            } else {
                                (format!("\"delta\":{{{}:", quoted(&member.name)), "}")
                            };
                            channel.carry_in_chat(&document, body, index, &place.0, place.1);
                        }
                    }
                    ("tool_calls", Data::List(calls)) => {
                        for call in calls {
                            let at = raw(body, call.get("index"));
                            let at = if at.is_empty() { "0" } else { at };
                            let custom = if call.get("custom").is_some() {
                                ("custom", "input")
                            } else {
                                ("function", "arguments")
                            };
                            let Some(inner) = call.get(custom.0) else { continue };
                            if let Some(channel) = self.chat_call(inner, custom.1, key(at), last, &mut edits) {
                                let before = format!(
                                    "\"delta\":{{\"tool_calls\":[{{\"index\":{at},\"{}\":{{\"{}\":",
                                    custom.0, custom.1
                                );
                                channel.carry_in_chat(&document, body, index, &before, "}}]}");
                            }
                        }
                    }
                    ("function_call", _) => {
                        let before = "\"delta\":{\"function_call\":{\"arguments\":";
                        if let Some(channel) = self.chat_call(&member.value, "arguments", key(""), last, &mut edits) {
                            channel.carry_in_chat(&document, body, index, before, "}}");
                        }
                    }
                    _ => self.restore(&member.value, &mut edits),
                }
            }
            if last {
                let own = format!("{index}/");
                ended.extend(self.take(|key| key.starts_with(&own)));
            }
        }
        if choices.is_empty() {
            ended = self.take(|_| true);
        }
        let mut out: Vec<String> = ended.iter().map(Channel::event).collect();
        out.push(edits.apply(body));
        change(body, out.join("\n\ndata: ")) // several events in one chunk: the host writes the first "data: "
    }

    /// A piece of a tool call: its arguments are JSON, the input of custom tools is a text.
    fn chat_call(
        &mut self,
        call: &Value,
        name: &str,
        key: String,
        last: bool,
        edits: &mut Edits,
    ) -> Option<&mut Channel> {
        let text = call.get(name).filter(|_| self.tools)?;
        if text.as_text().is_none() {
            self.restore(text, edits);
            return None;
        }
        self.feed(&Piece { key, arguments: name == "arguments", text, last }, edits)
    }

    // --- Gemini: one bare JSON object a chunk ---

    fn gemini(&mut self, body: &str) -> Change {
        let Some(document) = parse(body) else {
            return change(body, self.secrets.restore(body, false, true).0);
        };
        let mut edits = Edits::default();
        for candidate in document.get("candidates").map_or(&[][..], |candidates| candidates.items()) {
            let index = raw(body, candidate.get("index").filter(|index| !index.is_null()));
            let index = if index.is_empty() { "0" } else { index };
            let unfinished = ["", "FINISH_REASON_UNSPECIFIED"];
            let finished = candidate.text("finishReason").is_some_and(|reason| !unfinished.contains(&reason));
            let content = candidate.get("content");
            let list = content.and_then(|content| content.get("parts"));
            let parts = list.map_or(&[][..], |parts| parts.items());
            let text_of = |part: &Value, thought| part.text("text").is_some() && part.flag("thought") == thought;
            for (at, part) in parts.iter().enumerate() {
                let thought = part.flag("thought");
                match part.get("text").filter(|text| text.as_text().is_some()) {
                    Some(text) => {
                        let last = finished && !parts[at + 1..].iter().any(|later| text_of(later, thought));
                        let piece = Piece { key: format!("{index}/{thought}"), arguments: false, text, last };
                        self.feed(&piece, &mut edits);
                    }
                    None => self.restore(part, &mut edits),
                }
            }
            if finished {
                let own = format!("{index}/");
                let mut held = self.take(|key| key.starts_with(&own));
                held.sort_by(|one, other| other.key.cmp(&one.key)); // thoughts ("…/true") come first
                let held: Vec<_> = held.iter().map(gemini_part).collect();
                let held = held.join(",");
                let new = format!("{{\"role\":\"model\",\"parts\":[{held}]}}");
                match (content, list) {
                    _ if held.is_empty() => {}
                    (_, Some(list)) if parts.is_empty() => edits.replace(&list.at, format!("[{held}]")),
                    (_, Some(list)) => edits.replace(&(list.at.start + 1..list.at.start + 1), format!("{held},")),
                    (Some(content), None) if matches!(content.data, Data::Object(_)) => {
                        edits.insert(content, "parts", &format!("[{held}]"));
                    }
                    (Some(content), None) => edits.replace(&content.at, new),
                    (None, None) => edits.insert(candidate, "content", &new),
                }
            }
        }
        change(body, edits.apply(body))
    }

    // --- Claude and Responses: SSE text ---

    fn events(&mut self, body: &str, numbered: bool) -> Change {
        let joined = std::mem::take(&mut self.streams.partial) + body;
        let mut out = String::with_capacity(joined.len() + 64);
        let mut rest = joined.as_str();
        while !rest.is_empty() {
            let event = &rest[..end_of_event(rest)];
            rest = &rest[event.len()..];
            let data = data_of(event);
            match parse(&data) {
                Some(document) => self.event(event, &data, &document, numbered, &mut out),
                None if numbered && rest.is_empty() && data.len() < MAX_PARTIAL && unfinished(event, &data) => {
                    self.streams.partial = event.to_owned();
                }
                None => out.push_str(&self.secrets.restore(event, false, true).0),
            }
        }
        if out.is_empty() {
            return Change::Drop;
        }
        change(body, out)
    }

    fn event(&mut self, event: &str, data: &str, document: &Value, numbered: bool, out: &mut String) {
        let mut edits = Edits::default();
        let head: String =
            event.split_inclusive('\n').filter(|line| !line.starts_with("data:") && !line.trim().is_empty()).collect();
        let ended = if numbered {
            self.responses(document, data, &head, &mut edits)
        } else {
            self.claude(document, data, &head, &mut edits)
        };
        let number = document.integer("sequence_number");
        for channel in &ended {
            let mut edits = Edits::default();
            edits.replace(&(channel.at..channel.at + 2), quoted(&channel.held));
            if let (Some(number), Some(template)) = (number, parse(&channel.json)) {
                if let Some(old) = template.get("sequence_number") {
                    edits.replace(&old.at, number.saturating_add(self.streams.added).to_string());
                }
                self.streams.added += 1;
            }
            out.push_str(&channel.head);
            out.push_str("data: ");
            out.push_str(&edits.apply(&channel.json));
            out.push_str("\n\n");
        }
        if let (Some(number), true) = (number, self.streams.added > 0) {
            if let Some(old) = document.get("sequence_number") {
                edits.replace(&old.at, number.saturating_add(self.streams.added).to_string());
            }
        }
        if edits.is_empty() {
            out.push_str(event);
            return;
        }
        let (line, blank) = if event.contains("\r\n") { ("\r\n", "\r\n\r\n") } else { ("\n", "\n\n") };
        out.push_str(&head);
        if !head.is_empty() && !head.ends_with('\n') {
            out.push_str(line);
        }
        out.push_str("data: ");
        out.push_str(&edits.apply(data).replace('\n', " "));
        out.push_str(blank);
    }

    /// The channels that an event ends.
    fn claude(&mut self, event: &Value, data: &str, head: &str, edits: &mut Edits) -> Vec<Channel> {
        let index = format!("{}/", raw(data, event.get("index")));
        match event.text("type") {
            Some("content_block_delta") => {
                for member in event.get("delta").map_or(&[][..], |delta| delta.members()) {
                    let arguments = member.name == "partial_json";
                    let opaque = matches!(&*member.name, "type" | "signature") || (arguments && !self.tools);
                    if member.value.as_text().is_some() && !opaque {
                        let piece = Piece { key: index.clone(), arguments, text: &member.value, last: false };
                        self.feed_event(&piece, data, head, edits);
                    } else if !opaque {
                        self.restore(&member.value, edits);
                    }
                }
                Vec::new()
            }
            Some("content_block_stop") => self.take(|key| key == index),
            Some("message_delta" | "message_stop" | "error") => {
                self.restore(event, edits);
                self.take(|_| true)
            }
            _ => {
                self.restore(event, edits);
                Vec::new()
            }
        }
    }

    /// Likewise.
    fn responses(&mut self, event: &Value, data: &str, head: &str, edits: &mut Edits) -> Vec<Channel> {
        let kind = event.text("type").unwrap_or_default();
        let output = format!("{}/", raw(data, event.get("output_index")));
        let part = [event.get("content_index"), event.get("summary_index")].map(|index| raw(data, index)).join("/");
        let tool = kind.contains("_arguments.") || kind.contains("custom_tool_call_input.");
        if let (Some(base), Some(text)) = (kind.strip_suffix(".delta"), event.get("delta")) {
            if text.as_text().is_some() && (self.tools || !tool) {
                let arguments = kind.contains("_arguments.");
                let piece = Piece { key: format!("{output}{base}/{part}"), arguments, text, last: false };
                self.feed_event(&piece, data, head, edits);
            }
            return Vec::new();
        }
        if self.tools || !tool {
            self.restore(event, edits);
        }
        match kind {
            "response.completed" | "response.incomplete" | "response.failed" | "error" => self.take(|_| true),
            "response.output_item.done" => self.take(|key| key.starts_with(&output)),
            _ => match kind.strip_suffix(".done") {
                Some(base) => {
                    let own = format!("{output}{base}/{part}");
                    self.take(|key| key == own)
                }
                None => Vec::new(),
            },
        }
    }
}

/// A part with what is held.
fn gemini_part(channel: &Channel) -> String {
    let thought = if channel.key.ends_with("true") { ",\"thought\":true" } else { "" };
    format!("{{\"text\":{}{thought}}}", quoted(&channel.held))
}

impl Channel {
    /// A chunk for what is held: that of `document` with one choice, in which only this text comes.
    fn carry_in_chat(&mut self, document: &Value, body: &str, index: &str, before: &str, behind: &str) {
        let common = document.members().iter().filter(|member| {
            matches!(&*member.name, "id" | "object" | "created" | "model" | "service_tier" | "system_fingerprint")
        });
        let mut json = String::from("{");
        for member in common {
            json.push_str(&format!("{}:{},", &body[member.name_at.clone()], &body[member.value.at.clone()]));
        }
        let index = if index.is_empty() { "0" } else { index };
        json.push_str(&format!("\"choices\":[{{\"index\":{index},{before}"));
        self.at = json.len();
        json.push_str(&format!("\"\"{behind},\"finish_reason\":null}}]}}"));
        self.json = json;
    }

    /// The event with what is held.
    fn event(&self) -> String {
        let mut edits = Edits::default();
        edits.replace(&(self.at..self.at + 2), quoted(&self.held));
        edits.apply(&self.json)
    }
}

/// Length of the event at the beginning of `text`, with the blank lines behind it.
fn end_of_event(text: &str) -> usize {
    let mut at = 0;
    let mut seen = false;
    let mut blank = false;
    for line in text.split_inclusive('\n') {
        let empty = line.trim_end_matches(['\r', '\n']).is_empty();
        if blank && !empty {
            return at;
        }
        at += line.len();
        seen |= !empty;
        blank |= seen && empty;
    }
    at
}

/// The data of an event, its lines put together.
fn data_of(event: &str) -> String {
    let lines = event.lines().filter_map(|line| line.strip_prefix("data:"));
    lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

/// Whether more of an event may come: it is cut within its data or before.
fn unfinished(event: &str, data: &str) -> bool {
    let ended = event.ends_with("\n\n") || event.ends_with("\r\n\r\n");
    !ended && (data.is_empty() || data.starts_with('{')) && !event.trim().is_empty() && !event.starts_with(':')
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;

//! Streams of all formats, with placeholders cut anywhere.

use super::*;
use crate::settings::Settings;

const SECRET: &str = "top\"secret\\key\n";

/// The secrets of a request, with the placeholder of [`SECRET`].
fn secrets() -> (Secrets, String) {
    let settings = Settings::parse("literals: [\"top\\\"secret\\\\key\\n\"]").unwrap();
    let mut secrets = Secrets::default();
    let body = object(|o| o.text("content", SECRET));
    let masked = String::from_utf8(secrets.mask(body.as_bytes(), &settings).unwrap()).unwrap();
    let placeholder = parse(&masked).unwrap().text("content").unwrap().to_owned();
    assert!(placeholder.starts_with("REDACTED_CUSTOM_"));
    (secrets, placeholder)
}

use cpa_plugin::object;

/// The bare events of what a client gets.
fn run(format: Format, chunks: &[String], tools: bool) -> Vec<String> {
    let (secrets, _) = secrets();
    let mut streams = Streams::default();
    let mut out = String::new();
    let bare = matches!(format, Format::Chat | Format::Gemini);
    for chunk in chunks {
        let body = match streams.chunk(&secrets, format, chunk, tools) {
            Change::Same => chunk.clone(),
            Change::Body(body) => body,
            Change::Drop => continue,
        };
        out += &if bare { format!("data: {body}\n\n") } else { body };
    }
    out.split("\n\n").map(data_of).filter(|data| !data.is_empty()).collect()
}

fn text_at(events: &[String], path: &[&str]) -> String {
    let mut out = String::new();
    for event in events {
        let event = parse(event).expect(event);
        let mut found = Some(&event);
        for name in path {
            found = found.and_then(|value| match name.parse::<usize>() {
                Ok(at) => value.items().get(at),
                Err(_) => value.get(name),
            });
        }
        out += found.and_then(|value| value.as_text()).unwrap_or_default();
    }
    out
}

fn piece_events(format: Format, text: &str, arguments: bool) -> String {
    let text = quoted(text);
    match (format, arguments) {
        (Format::Chat, false) => format!(r#"{{"id":"c","model":"m","choices":[{{"index":0,"delta":{{"content":{text}}},"finish_reason":null}}]}}"#),
        (Format::Chat, true) => format!(r#"{{"id":"c","choices":[{{"index":0,"delta":{{"tool_calls":[{{"index":1,"function":{{"arguments":{text}}}}}]}}}}]}}"#),
        (Format::Claude, false) => format!("event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":2,\"delta\":{{\"type\":\"text_delta\",\"text\":{text}}}}}\n\n"),
        (Format::Claude, true) => format!("event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":2,\"delta\":{{\"type\":\"input_json_delta\",\"partial_json\":{text}}}}}\n\n"),
        (Format::Responses, false) => format!("event: response.output_text.delta\ndata: {{\"type\":\"response.output_text.delta\",\"output_index\":0,\"content_index\":0,\"delta\":{text},\"sequence_number\":7}}\n\n"),
        (Format::Responses, true) => format!("event: response.function_call_arguments.delta\ndata: {{\"type\":\"response.function_call_arguments.delta\",\"sequence_number\":7,\"output_index\":0,\"delta\":{text}}}\n\n"),
        _ => format!(r#"{{"candidates":[{{"content":{{"role":"model","parts":[{{"text":{text}}}]}},"index":0}}]}}"#),
    }
}

fn end(format: Format, arguments: bool) -> String {
    match format {
        Format::Chat => r#"{"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#.to_owned(),
        Format::Claude => "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":2}\n\n".to_owned(),
        Format::Responses if arguments => "event: x\ndata: {\"type\":\"response.function_call_arguments.done\",\"output_index\":0,\"arguments\":\"\",\"sequence_number\":8}\n\n".to_owned(),
        Format::Responses => "event: x\ndata: {\"type\":\"response.output_text.done\",\"output_index\":0,\"content_index\":0,\"text\":\"\",\"sequence_number\":8}\n\n".to_owned(),
        _ => r#"{"candidates":[{"finishReason":"STOP","index":0}]}"#.to_owned(),
    }
}

fn path(format: Format, arguments: bool) -> &'static [&'static str] {
    match (format, arguments) {
        (Format::Chat, false) => &["choices", "0", "delta", "content"],
        (Format::Chat, true) => &["choices", "0", "delta", "tool_calls", "0", "function", "arguments"],
        (Format::Claude, false) => &["delta", "text"],
        (Format::Claude, true) => &["delta", "partial_json"],
        (Format::Responses, _) => &["delta"],
        _ => &["candidates", "0", "content", "parts", "0", "text"],
    }
}

const CASES: [(Format, bool); 7] = [
    (Format::Chat, false),
    (Format::Chat, true),
    (Format::Claude, false),
    (Format::Claude, true),
    (Format::Responses, false),
    (Format::Responses, true),
    (Format::Gemini, false),
];

#[test]
fn placeholders_are_put_back_however_they_are_cut() {
    let (_, placeholder) = secrets();
    for (format, arguments) in CASES {
        let (before, behind) = if arguments { ("{\"k\":\"", "\"}") } else { ("grüß ", " REDAC") };
        let whole = format!("{before}{placeholder}{behind}");
        let secret = quoted(SECRET);
        let expected = if arguments {
            format!("{before}{}{behind}", &secret[1..secret.len() - 1])
        } else {
            whole.replace(&placeholder, SECRET)
        };
        let places: Vec<usize> = whole.char_indices().map(|(at, _)| at).collect();
        for first in &places {
            for second in places.iter().filter(|second| *second >= first).step_by(11) {
                let pieces = [&whole[..*first], &whole[*first..*second], &whole[*second..]];
                let mut chunks: Vec<_> = pieces.map(|piece| piece_events(format, piece, arguments)).into();
                chunks.push(end(format, arguments));
                let events = run(format, &chunks, true);
                assert_eq!(text_at(&events, path(format, arguments)), expected, "{format:?} {first} {second}");
            }
        }
        let mut single: Vec<_> = whole.chars().map(|one| piece_events(format, &one.to_string(), arguments)).collect();
        single.push(end(format, arguments));
        assert_eq!(text_at(&run(format, &single, true), path(format, arguments)), expected, "{format:?}");
    }
}

#[test]
fn what_only_begins_like_one_comes_out_at_the_end() {
    for (format, arguments) in CASES {
        for text in ["R", "REDACTED_", "REDACTED_CUSTOM_0123456789abcdeg REDACTED_CUSTOM_", "RR", "x"] {
            let chunks = [piece_events(format, text, arguments), end(format, arguments)];
            let events = run(format, &chunks, true);
            assert_eq!(text_at(&events, path(format, arguments)), text, "{format:?}");
            if format == Format::Responses {
                let numbers: Vec<_> =
                    events.iter().map(|event| parse(event).unwrap().integer("sequence_number").unwrap()).collect();
                assert!(numbers.windows(2).all(|two| two[1] == two[0] + 1), "{numbers:?}");
            }
        }
    }
}

#[test]
fn tools_may_be_left_out() {
    let (_, placeholder) = secrets();
    for (format, arguments) in CASES.into_iter().filter(|(_, arguments)| *arguments) {
        let chunks = [piece_events(format, &placeholder, arguments), end(format, arguments)];
        assert_eq!(text_at(&run(format, &chunks, false), path(format, arguments)), placeholder);
    }
}

#[test]
fn what_has_nothing_to_do_with_it_stays_as_it_is() {
    let (secrets, _) = secrets();
    for format in [Format::Chat, Format::Claude, Format::Gemini, Format::Responses, Format::Other] {
        for body in [
            "{\"a\" : \"Rx\" }",
            "no JSON R",
            "data: {\"type\":\"ping\", \"R\":1}\r\n\r\n",
            "event: R\ndata: {}\n\n: R\n\n",
            "[]",
            "{\"choices\":[{\"delta\":null,\"R\":1}]}",
            "{\"candidates\":[{\"content\":{\"parts\":{}}}],\"R\":1}",
        ] {
            let mut streams = Streams::default();
            let partial =
                format == Format::Responses && matches!(streams.chunk(&secrets, format, body, true), Change::Drop);
            assert!(
                partial || Streams::default().chunk(&secrets, format, body, true) == Change::Same,
                "{format:?} {body}"
            );
        }
    }
}

#[test]
fn events_that_are_cut_over_chunks_are_put_together() {
    let (_, placeholder) = secrets();
    let whole = piece_events(Format::Responses, &placeholder, false) + &end(Format::Responses, false);
    for at in 1..whole.len() {
        let chunks = [whole[..at].to_owned(), whole[at..].to_owned()];
        assert_eq!(text_at(&run(Format::Responses, &chunks, true), &["delta"]), SECRET, "{at}");
    }
}

#[test]
fn gemini_gets_what_is_held_wherever_there_is_room() {
    let thought = r#"{"candidates":[{"content":{"parts":[{"text":"RED","thought":true},{"text":"R"}]}}]}"#;
    for (last, parts) in [
        (r#"{"candidates":[{"finishReason":"STOP"}]}"#, 2),
        (r#"{"candidates":[{"content":null,"finishReason":"STOP"}]}"#, 2),
        (r#"{"candidates":[{"content":{"role":"model"},"finishReason":"STOP"}]}"#, 2),
        (r#"{"candidates":[{"content":{"parts":[]},"finishReason":"STOP"}]}"#, 2),
        (r#"{"candidates":[{"content":{"parts":null},"finishReason":"STOP"}]}"#, 2),
        (r#"{"candidates":[{"content":{"parts":[{"text":"x"}]},"finishReason":"STOP"}]}"#, 2),
        (r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f"}}]},"finishReason":"STOP"}]}"#, 3),
    ] {
        let events = run(Format::Gemini, &[thought.to_owned(), last.to_owned()], true);
        let event = parse(&events[1]).expect(&events[1]);
        let content = event.get("candidates").unwrap().items()[0].get("content").unwrap();
        let found = content.get("parts").unwrap().items();
        assert_eq!(found.len(), parts, "{last}");
        assert_eq!((found[0].text("text"), found[0].flag("thought")), (Some("RED"), true), "{last}");
        assert!(found[1].text("text").unwrap().starts_with('R') && !found[1].flag("thought"), "{last}");
    }
}

#[test]
fn empty_reasons_end_nothing() {
    let (_, placeholder) = secrets();
    let (first, second) = placeholder.split_at(12);
    let pieces = [first, second].map(|piece| {
        piece_events(Format::Chat, piece, false).replace("\"finish_reason\":null", "\"finish_reason\":\"\"")
    });
    assert_eq!(text_at(&run(Format::Chat, &pieces, true), path(Format::Chat, false)), SECRET);
}

#[test]
fn any_chunks_are_survived() {
    let (secrets, placeholder) = secrets();
    let words = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"choices\"",
        "\"delta\"",
        "\"content\"",
        "\"index\"",
        "0",
        "null",
        "\"RED\"",
        "\"R\"",
        "event: R\n",
        "data: ",
        "\n\n",
        "\r\n",
        "\"type\"",
        "\"content_block_delta\"",
        "\"text\"",
        "\"candidates\"",
        "\"parts\"",
        "\"finishReason\"",
        "\"ü\"",
        "\"response.output_text.delta\"",
        "\"sequence_number\"",
        "9223372036854775807",
        "\"finish_reason\"",
        "\"tool_calls\"",
        "\"function\"",
        &placeholder,
        "{\"choices\":[{\"delta\":{\"content\":\"R\"}}]}",
    ];
    let mut seed = 1u64;
    for format in [Format::Chat, Format::Claude, Format::Gemini, Format::Responses, Format::Other] {
        for _ in 0..400 {
            let mut streams = Streams::default();
            for _ in 0..6 {
                let mut chunk = String::new();
                for _ in 0..12 {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    chunk += words[(seed >> 33) as usize % words.len()];
                }
                streams.chunk(&secrets, format, &chunk, true);
            }
        }
    }
}

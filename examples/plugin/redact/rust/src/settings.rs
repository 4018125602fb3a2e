//! The plugin's settings: a small part of YAML, of which everything else is refused. Who misreads a policy leaks.
//!
//! Known are `name: value` and `name:` with a list below it (`- value`) or behind it (`[value, value]`), where values
//! stand on one line, plain or in single or double quotes. Errors name lines and never repeat values: those are secrets.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::OnceLock;

use crate::detect::{Detectors, Kind};
use crate::pattern::Pattern;

/// A key that is guessed helps to find out what placeholders stand for.
const MIN_KEY_CHARS: usize = 16;
/// Shorter ones would hide half of every text.
const MIN_LITERAL_CHARS: usize = 4;

pub struct Settings {
    pub detectors: Detectors,
    /// Of the placeholders.
    pub key: Vec<u8>,
    /// Whether arguments of tool calls get their secrets back.
    pub tools: bool,
}

impl Settings {
    /// From the YAML that the host hands over.
    pub fn parse(yaml: &str) -> Result<Self, String> {
        let mut kinds = Kind::BUILT_IN.to_vec();
        kinds.retain(|kind| *kind != Kind::Email);
        let (mut patterns, mut literals, mut key, mut tools) = (Vec::new(), Vec::new(), None, true);
        for Entry { line, name, value } in entries(yaml)? {
            let wrong = |what: String| format!("line {line}: {name}: {what}");
            match name.as_str() {
                "detectors" => {
                    let known = |value: &String| {
                        Kind::named(value).ok_or_else(|| {
                            wrong("expected a list of api_key, aws_key, card, email, jwt, private_key".into())
                        })
                    };
                    kinds = value
                        .list()
                        .ok_or_else(|| wrong("expected a list".into()))?
                        .iter()
                        .map(known)
                        .collect::<Result<_, _>>()?;
                }
                "patterns" => {
                    for (at, text) in value.list().ok_or_else(|| wrong("expected a list".into()))?.iter().enumerate() {
                        let pattern = Pattern::parse(text);
                        patterns.push(pattern.map_err(|what| wrong(format!("entry {}: {what}", at + 1)))?);
                    }
                }
                "literals" => {
                    literals = value.list().ok_or_else(|| wrong("expected a list".into()))?;
                    if literals.iter().any(|text| text.chars().count() < MIN_LITERAL_CHARS) {
                        return Err(wrong(format!("expected strings of at least {MIN_LITERAL_CHARS} characters")));
                    }
                }
                "key" => {
                    let text = value.scalar().ok_or_else(|| wrong("expected a string".into()))?;
                    if !text.is_empty() && text.chars().count() < MIN_KEY_CHARS {
                        return Err(wrong(format!("expected at least {MIN_KEY_CHARS} characters")));
                    }
                    key = (!text.is_empty()).then(|| text.into_bytes());
                }
                "tools" => {
                    tools = match value.scalar().as_deref() {
                        Some("true") => true,
                        Some("false") => false,
                        _ => return Err(wrong("expected true or false".into())),
                    };
                }
                "enabled" | "priority" | "store" | "isolation" | "timeout" => {} // the host's
                _ => {
                    return Err(format!(
                        "line {line}: unknown setting; known: detectors, key, literals, patterns, tools"
                    ))
                }
            }
        }
        let detectors = Detectors::new(&kinds, patterns, &literals);
        Ok(Self { detectors, key: key.unwrap_or_else(|| RANDOM.get_or_init(random).clone()), tools })
    }
}

/// The key of those who give none: as long as the plugin runs, however often its settings change.
static RANDOM: OnceLock<Vec<u8>> = OnceLock::new();

/// 32 bytes that nobody can guess: hashes of numbers under keys of the operating system's.
fn random() -> Vec<u8> {
    let state = RandomState::new();
    let word = |number: u64| {
        let mut hasher = state.build_hasher();
        hasher.write_u64(number);
        hasher.finish().to_le_bytes()
    };
    (0..4).flat_map(word).collect()
}

#[derive(Debug, PartialEq)]
enum Setting {
    Scalar(String),
    List(Vec<String>),
    Nothing,
}

impl Setting {
    fn list(&self) -> Option<Vec<String>> {
        match self {
            Self::List(items) => Some(items.clone()),
            Self::Nothing => Some(Vec::new()),
            Self::Scalar(_) => None,
        }
    }

    fn scalar(&self) -> Option<String> {
        match self {
            Self::Scalar(text) => Some(text.clone()),
            Self::Nothing => Some(String::new()),
            Self::List(_) => None,
        }
    }
}

#[derive(Debug, PartialEq)]
struct Entry {
    line: usize,
    name: String,
    value: Setting,
}

fn entries(yaml: &str) -> Result<Vec<Entry>, String> {
    let mut made: Vec<Entry> = Vec::new();
    let mut skipping = false; // what is below a setting of the host's
    for (number, line) in yaml.lines().enumerate().map(|(at, line)| (at + 1, line.trim_end())) {
        let text = line.trim_start();
        if text.is_empty() || text.starts_with('#') || text == "---" {
            continue;
        }
        let indented = text.len() < line.len();
        if let Some(item) = text.strip_prefix("- ").or((text == "-").then_some("")) {
            let last = made.last_mut().filter(|_| !skipping).ok_or(format!("line {number}: a list without a name"))?;
            let value = scalar(item.trim()).map_err(|what| format!("line {number}: {what}"))?;
            match &mut last.value {
                Setting::List(items) => items.push(value),
                nothing @ Setting::Nothing => *nothing = Setting::List(vec![value]),
                Setting::Scalar(_) => return Err(format!("line {number}: a list below a value")),
            }
            continue;
        }
        if indented && skipping {
            continue;
        }
        if indented {
            return Err(format!("line {number}: expected \"name: value\" without indentation, or \"- value\""));
        }
        let (name, value) = text.split_once(':').ok_or(format!("line {number}: expected \"name: value\""))?;
        if !value.is_empty() && !value.starts_with(' ') {
            return Err(format!("line {number}: expected a blank behind the colon"));
        }
        let name = name.trim_end().trim_matches(['"', '\'']).to_owned();
        if made.iter().any(|entry| entry.name == name) {
            return Err(format!("line {number}: given twice"));
        }
        skipping = name == "store";
        let value = if skipping { Ok(Setting::Nothing) } else { setting(value.trim()) };
        made.push(Entry { line: number, name, value: value.map_err(|what| format!("line {number}: {what}"))? });
    }
    Ok(made)
}

fn setting(text: &str) -> Result<Setting, String> {
    if text.is_empty() || text.starts_with('#') || matches!(text, "null" | "~") {
        return Ok(Setting::Nothing);
    }
    let Some(mut rest) = text.strip_prefix('[') else {
        return scalar(text).map(Setting::Scalar);
    };
    let mut items = Vec::new();
    loop {
        rest = rest.trim_start();
        if let Some(behind) = rest.strip_prefix(']') {
            return only_comment(behind).map(|()| Setting::List(items));
        }
        let (item, behind) = match rest.chars().next() {
            Some('"' | '\'') => quoted(rest)?,
            Some('[' | '{') => return Err("lists in lists are not known here".to_owned()),
            _ => {
                let end = rest.find([',', ']']).ok_or("a list has to end on its line")?;
                (plain(rest[..end].trim_end())?, &rest[end..])
            }
        };
        items.push(item);
        rest = behind.trim_start();
        if let Some(behind) = rest.strip_prefix(',') {
            rest = behind;
        } else if !rest.starts_with(']') {
            return Err("expected , or ] in a list".to_owned());
        }
    }
}

fn scalar(text: &str) -> Result<String, String> {
    if text.starts_with(['"', '\'']) {
        let (made, rest) = quoted(text)?;
        return only_comment(rest).map(|()| made);
    }
    let end = text.find(" #").unwrap_or(text.len());
    plain(text[..end].trim_end())
}

fn plain(text: &str) -> Result<String, String> {
    let special = text.starts_with(['|', '>', '&', '*', '!', '{', '[', '%', '@', '`', '?', ']', '}', ',']);
    if special || text.contains(": ") || text.ends_with(':') {
        return Err("values with special characters have to be quoted".to_owned());
    }
    Ok(text.to_owned())
}

fn only_comment(rest: &str) -> Result<(), String> {
    let rest = rest.trim();
    (rest.is_empty() || rest.starts_with('#')).then_some(()).ok_or_else(|| "text behind the end of a value".to_owned())
}

/// A quoted string at the beginning of `text`, and what comes behind it.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let single = text.starts_with('\'');
    let mut made = String::new();
    let mut rest = text[1..].char_indices();
    while let Some((at, one)) = rest.next() {
        match one {
            '\'' if single && text[at + 2..].starts_with('\'') => {
                made.push('\'');
                rest.next();
            }
            '\'' if single => return Ok((made, &text[at + 2..])),
            '"' if !single => return Ok((made, &text[at + 2..])),
            '\\' if !single => {
                let meant = text[at + 2..].chars().next().and_then(simple);
                match meant {
                    Some(letter) => {
                        made.push(letter);
                        rest.next();
                    }
                    None => return Err("an escape that is not known here; use single quotes".to_owned()),
                }
            }
            _ => made.push(one),
        }
    }
    Err("a quoted value has to end on its line".to_owned())
}

fn simple(letter: char) -> Option<char> {
    Some(match letter {
        '"' | '\\' | '/' => letter,
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> Vec<(String, Setting)> {
        entries(yaml).unwrap().into_iter().map(|entry| (entry.name, entry.value)).collect()
    }

    #[test]
    fn yaml_is_read() {
        let yaml = "# about\nenabled: true\nstore:\n    version: 1.0\nlist:   # these\n    - plain text # not this\n    - 'it''s'\n    - \"a\\n\\\"b\\\\\"\nother: [a, 'b, c', \"d]\"]\nnone: []\nkey: 'x # y'\n";
        let list = |items: &[&str]| Setting::List(items.iter().map(|item| (*item).to_owned()).collect());
        let expected = [
            ("enabled", Setting::Scalar("true".into())),
            ("store", Setting::Nothing),
            ("list", list(&["plain text", "it's", "a\n\"b\\"])),
            ("other", list(&["a", "b, c", "d]"])),
            ("none", list(&[])),
            ("key", Setting::Scalar("x # y".into())),
        ];
        assert_eq!(read(yaml), expected.map(|(name, value)| (name.to_owned(), value)));
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for yaml in [
            "- a",
            "a: b\na: c",
            "a",
            "a:b",
            "  a: b",
            "a: |\n  text",
            "a: {b: c}",
            "a: [b",
            "a: [[b]]",
            "a: 'b",
            "a: \"b\\x41\"",
            "a: 'b' c",
            "a: b: c",
            "a: b\n- c",
            "a: *b",
            "a: ['b' 'c']",
            "a:\n  - b: c",
        ] {
            assert!(entries(yaml).is_err(), "{yaml}");
        }
        for (yaml, said) in [
            ("detectors: [apikey]", "line 1: detectors: expected a list of api_key"),
            ("\ndetectors: all", "line 2: detectors: expected a list"),
            ("patterns: ['abcd', '[secret']", "line 1: patterns: entry 2: character 1: [ is not closed"),
            ("literals: [abc]", "line 1: literals: expected strings of at least 4"),
            ("key: short", "line 1: key: expected at least 16"),
            ("tools: yes", "line 1: tools: expected true or false"),
            ("detector: [jwt]", "line 1: unknown setting; known: detectors"),
        ] {
            let error = Settings::parse(yaml).err().expect(yaml);
            assert!(error.starts_with(said), "{error}");
        }
    }

    #[test]
    fn settings_have_defaults() {
        let bare = Settings::parse("enabled: true\npriority: 1\n").unwrap();
        assert_eq!((bare.tools, bare.key.len()), (true, 32));
        assert_ne!(random(), random());
        assert_eq!(bare.key, Settings::parse("").unwrap().key);
        assert!(bare.detectors.find(b"a@b.org").is_empty());
        let set =
            Settings::parse("detectors: [email]\ntools: false\nkey: 0123456789abcdef\nliterals:\n- word\n").unwrap();
        assert_eq!((set.tools, set.key.as_slice()), (false, b"0123456789abcdef".as_slice()));
        assert_eq!(set.detectors.find(b"a@b.org AKIAIOSFODNN7EXAMPLE word").len(), 2);
    }
}

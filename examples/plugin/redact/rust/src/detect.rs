//! Finds secrets in a text.

use std::ops::Range;

use crate::pattern::{is_word, on_its_own, Pattern, Runs};

/// What a secret is, as its placeholder says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    ApiKey,
    AwsKey,
    Card,
    Custom,
    Email,
    Jwt,
    PrivateKey,
}

impl Kind {
    /// As placeholders have it.
    pub fn label(self) -> &'static str {
        match self {
            Self::ApiKey => "API_KEY",
            Self::AwsKey => "AWS_KEY",
            Self::Card => "CARD",
            Self::Custom => "CUSTOM",
            Self::Email => "EMAIL",
            Self::Jwt => "JWT",
            Self::PrivateKey => "PRIVATE_KEY",
        }
    }

    /// As settings have it; those are the built-in detectors.
    pub fn named(name: &str) -> Option<Self> {
        Self::BUILT_IN.into_iter().find(|kind| kind.label().eq_ignore_ascii_case(name))
    }

    pub const BUILT_IN: [Self; 6] = [Self::ApiKey, Self::AwsKey, Self::Card, Self::Email, Self::Jwt, Self::PrivateKey];
}

/// Keys that say what they are. The vendors document most of these prefixes for exactly this use.
const API_KEYS: [&str; 24] = [
    "sk-[A-Za-z0-9_-]{16,}",    // OpenAI, Anthropic, OpenRouter, DeepSeek and many who follow them
    "sk_live_[A-Za-z0-9]{16,}", // Stripe
    "sk_test_[A-Za-z0-9]{16,}",
    "rk_live_[A-Za-z0-9]{16,}",
    "whsec_[A-Za-z0-9+/]{20,}",
    "gh[pousr]_[A-Za-z0-9]{36,}", // GitHub
    "github_pat_[A-Za-z0-9_]{22,}",
    "glpat-[A-Za-z0-9_-]{20,}",       // GitLab
    "xox[abeoprs]-[A-Za-z0-9-]{10,}", // Slack
    "xapp-[A-Za-z0-9-]{10,}",
    "AIza[A-Za-z0-9_-]{35}", // Google
    "ya29\\.[A-Za-z0-9_-]{20,}",
    "GOCSPX-[A-Za-z0-9_-]{20,}",
    "hf_[A-Za-z0-9]{30,}", // Hugging Face
    "npm_[A-Za-z0-9]{36}",
    "pypi-[A-Za-z0-9_-]{50,}",
    "SG\\.[A-Za-z0-9_-]{16,}\\.[A-Za-z0-9_-]{16,}", // SendGrid
    "SK[0-9a-f]{32}",                               // Twilio
    "dop_v1_[0-9a-f]{64}",                          // DigitalOcean
    "shpat_[0-9a-f]{32}",                           // Shopify
    "xai-[A-Za-z0-9]{40,}",
    "gsk_[A-Za-z0-9]{40,}", // Groq
    "r8_[A-Za-z0-9]{37,}",  // Replicate
    "AGE-SECRET-KEY-1[A-Z0-9]{58}",
];
const AWS_IDS: &str = "A[KS]IA[A-Z0-9]{16}";
const JWTS: [&str; 2] = [
    "eyJ[A-Za-z0-9_-]{8,}\\.eyJ[A-Za-z0-9_-]{8,}\\.[A-Za-z0-9_-]{0,}",
    "eyJ[A-Za-z0-9_-]{8,}\\.[A-Za-z0-9_-]{0,}\\.[A-Za-z0-9_-]{8,}\\.[A-Za-z0-9_-]{8,}\\.[A-Za-z0-9_-]{8,}", // JWE
];
/// Names that AWS and its tools give to the other half of a key, which has no shape of its own.
const AWS_SECRET_NAMES: [&[u8]; 4] =
    [b"aws_secret_access_key", b"secretaccesskey", b"aws_session_token", b"secret_access_key"];
const PEM_BEGIN: &[u8] = b"-----BEGIN ";
const PEM_KEY: &[u8] = b"PRIVATE KEY";
const DASHES: &[u8] = b"-----";
const MAX_EMAIL: usize = 254;
const CARD_DIGITS: Range<usize> = 13..20;

/// A secret in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub at: Range<usize>,
    pub kind: Kind,
}

/// Knows what to look for.
pub struct Detectors {
    patterns: Vec<(Kind, Pattern)>,
    literals: Vec<Vec<u8>>,
    aws: bool,
    card: bool,
    email: bool,
    pem: bool,
    /// By the first byte: whether anything can begin with it, and which patterns can.
    worth: [bool; 256],
    beginning: Vec<Vec<usize>>,
}

impl Detectors {
    pub fn new(kinds: &[Kind], patterns: Vec<Pattern>, literals: &[String]) -> Self {
        let built_in = |kind, texts: &[&str]| -> Vec<(Kind, Pattern)> {
            let wanted = texts.iter().filter(|_| kinds.contains(&kind));
            wanted.map(|text| (kind, Pattern::parse(text).expect("tested"))).collect()
        };
        let mut all: Vec<_> = patterns.into_iter().map(|pattern| (Kind::Custom, pattern)).collect();
        all.extend(built_in(Kind::ApiKey, &API_KEYS));
        all.extend(built_in(Kind::AwsKey, &[AWS_IDS]));
        all.extend(built_in(Kind::Jwt, &JWTS));
        let mut made = Self {
            patterns: all,
            literals: with_escaped(literals),
            aws: kinds.contains(&Kind::AwsKey),
            card: kinds.contains(&Kind::Card),
            email: kinds.contains(&Kind::Email),
            pem: kinds.contains(&Kind::PrivateKey),
            worth: [false; 256],
            beginning: Vec::new(),
        };
        for byte in 0..=255 {
            let fitting = |at: &usize| made.patterns[*at].1.may_begin_with(byte);
            made.beginning.push((0..made.patterns.len()).filter(fitting).collect());
            made.worth[usize::from(byte)] = !made.beginning[usize::from(byte)].is_empty()
                || made.literals.iter().any(|literal| literal[0] == byte)
                || (made.aws && AWS_SECRET_NAMES.iter().any(|name| name[0] == byte.to_ascii_lowercase()))
                || (made.card && byte.is_ascii_digit())
                || (made.email && is_local(byte))
                || (made.pem && byte == b'-');
        }
        made
    }

    /// All secrets, in order, none overlapping another: the leftmost first, of those that begin together the longest.
    pub fn find(&self, text: &[u8]) -> Vec<Found> {
        let mut found = Vec::new();
        let mut at = 0;
        let mut runs: Vec<Runs> = vec![Runs::new(); self.patterns.len()];
        while let Some(skipped) = text[at..].iter().position(|byte| self.worth[usize::from(*byte)]) {
            at += skipped;
            match self.at(text, at, &mut runs) {
                Some(one) => {
                    at = one.at.end;
                    found.push(one);
                }
                None => at += 1,
            }
        }
        found
    }

    fn at(&self, text: &[u8], at: usize, runs: &mut [Runs]) -> Option<Found> {
        let rest = &text[at..];
        let mut best: Option<Found> = None;
        let mut keep = |kind, found: Range<usize>| {
            let longer = best.as_ref().is_none_or(|one| found.end > one.at.end || found.start < one.at.start);
            if longer && !found.is_empty() {
                best = Some(Found { at: found, kind });
            }
        };
        for literal in self.literals.iter().filter(|literal| rest.starts_with(literal)) {
            keep(Kind::Custom, at..at + literal.len());
        }
        for number in self.beginning[usize::from(text[at])].iter().copied() {
            let (kind, pattern) = &self.patterns[number];
            if let Some(end) = pattern.end_of(text, at, &mut runs[number]) {
                keep(*kind, at..end);
            }
        }
        if let Some(end) = private_key(rest).filter(|_| self.pem) {
            keep(Kind::PrivateKey, at..at + end);
        }
        if let Some(end) = card(text, at).filter(|_| self.card) {
            keep(Kind::Card, at..end);
        }
        if let Some(end) = email(text, at).filter(|_| self.email) {
            keep(Kind::Email, at..end);
        }
        if best.is_none() && self.aws {
            let value = aws_secret(text, at)?;
            best = Some(Found { at: value, kind: Kind::AwsKey });
        }
        best
    }
}

/// Literals also as they stand in JSON that is quoted within a text. Longest first is not needed: `at` compares.
fn with_escaped(literals: &[String]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for literal in literals {
        let quoted = cpa_plugin::quoted(literal);
        for text in [literal.as_str(), &quoted[1..quoted.len() - 1]] {
            if !text.is_empty() && !all.iter().any(|known| known == text.as_bytes()) {
                all.push(text.as_bytes().to_vec());
            }
        }
    }
    all
}

/// Length of a PEM block with a private key, to its last line or, when that is missing, as far as it looks like one.
/// Line breaks may be written as `\n`, which is how such keys stand in JSON and in environment files.
fn private_key(text: &[u8]) -> Option<usize> {
    let label = text.strip_prefix(PEM_BEGIN)?;
    let label_len = label.iter().take(40).take_while(|byte| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b' ')).count();
    let label = &label[..label_len];
    if !label.windows(PEM_KEY.len()).any(|part| part == PEM_KEY) {
        return None;
    }
    let mut at = PEM_BEGIN.len() + label_len;
    if !text[at..].starts_with(DASHES) {
        return None;
    }
    at += DASHES.len();
    let end = [b"-----END ", label, DASHES].concat();
    let body = text[at..].iter().position(|byte| !is_pem(*byte)).map_or(text.len(), |len| at + len);
    // The body of encrypted keys has header lines ("Proc-Type: 4,ENCRYPTED"), which have a dash in them.
    Some(find(&text[at..body], &end).map_or(body, |found| at + found + end.len()))
}

fn is_pem(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/=-\\ \r\n\t:,".contains(&byte)
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

/// The end of 13 to 19 digits, in groups or not, whose last one is right (Luhn).
fn card(text: &[u8], from: usize) -> Option<usize> {
    let before = from.checked_sub(1).map(|at| text[at]);
    if !text[from].is_ascii_digit() || before.is_some_and(|byte| is_word(byte) || byte == b'.') {
        return None;
    }
    let (mut digits, mut at) = (Vec::new(), from);
    while let Some(byte) = text.get(at) {
        match byte {
            b'0'..=b'9' => digits.push(u32::from(byte - b'0')),
            b' ' | b'-' if digits.len() < 19 && text.get(at + 1).is_some_and(u8::is_ascii_digit) => {}
            _ => break,
        }
        at += 1;
        if digits.len() == CARD_DIGITS.end {
            return None;
        }
    }
    let doubled = |digit: u32| if digit > 4 { 2 * digit - 9 } else { 2 * digit };
    let sum: u32 =
        digits.iter().rev().enumerate().map(|(at, one)| if at % 2 == 1 { doubled(*one) } else { *one }).sum();
    // Cards begin with 2 to 6 (Visa, Mastercard, Amex, Discover, UnionPay …); timestamps and ids mostly do not.
    let good = CARD_DIGITS.contains(&digits.len()) && sum % 10 == 0 && matches!(digits[0], 2..=6);
    (good && on_its_own(text, from, at)).then_some(at)
}

fn is_local(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._%+-".contains(&byte)
}

fn email(text: &[u8], from: usize) -> Option<usize> {
    if !is_local(text[from]) || from.checked_sub(1).is_some_and(|at| is_local(text[at])) {
        return None;
    }
    let local = text[from..].iter().take(MAX_EMAIL).take_while(|byte| is_local(**byte)).count();
    let domain = from + local + 1;
    if text.get(domain - 1) != Some(&b'@') {
        return None;
    }
    let is_domain = |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(**byte, b'.' | b'-');
    let mut len = text[domain..].iter().take(MAX_EMAIL).take_while(is_domain).count();
    while len > 0 && matches!(text[domain + len - 1], b'.' | b'-') {
        len -= 1;
    }
    let name = &text[domain..domain + len];
    (name.contains(&b'.') && !name.starts_with(b".")).then_some(domain + len)
}

/// The value behind one of the names of an AWS secret that stands at `from`.
fn aws_secret(text: &[u8], from: usize) -> Option<Range<usize>> {
    let rest = &text[from..];
    let name = AWS_SECRET_NAMES
        .iter()
        .find(|name| rest.get(..name.len()).is_some_and(|part| part.eq_ignore_ascii_case(name)))?;
    let between = rest[name.len()..].iter().take(8).take_while(|byte| b" \t=:\"'\\>".contains(byte)).count();
    let value = from + name.len() + between;
    let is_value = |byte: &&u8| byte.is_ascii_alphanumeric() || b"/+=".contains(byte);
    let len = text[value..].iter().take(4096).take_while(is_value).count();
    (between > 0 && len >= 40).then_some(value..value + len)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEM: &str = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow+/=\nAAAA\n-----END RSA PRIVATE KEY-----";

    fn all() -> Detectors {
        Detectors::new(
            &Kind::BUILT_IN,
            vec![Pattern::parse("EMP-[0-9]{6}").unwrap()],
            &["hunter\"2\n".into(), "grün".into()],
        )
    }

    fn found(text: &str) -> Vec<(Kind, String)> {
        all().find(text.as_bytes()).into_iter().map(|one| (one.kind, text[one.at].to_owned())).collect()
    }

    #[test]
    fn secrets_are_found() {
        let key = "sk-proj-abcdefghijklmnop_-123456";
        let token = format!("ghp_{}", "a1".repeat(18));
        let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTYifQ.c2lnbmF0dXJl-_x";
        let inline = PEM.replace('\n', "\\n");
        let secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
        let cut = "-----BEGIN PRIVATE KEY-----\nMIIEow";
        for (kind, text) in [
            (Kind::ApiKey, key),
            (Kind::ApiKey, &token),
            (Kind::ApiKey, "AIzaabcdefghijklmnopqrstuvwxyz012345678"),
            (Kind::AwsKey, "AKIAIOSFODNN7EXAMPLE"),
            (Kind::Jwt, jwt),
            (Kind::Card, "4111 1111 1111 1111"),
            (Kind::Card, "378282246310005"),
            (Kind::Card, "4012-8888-8888-1881"),
            (Kind::Email, "jane.doe+x@mail.example.org"),
            (Kind::PrivateKey, PEM),
            (Kind::PrivateKey, &inline),
            (Kind::PrivateKey, cut),
            (Kind::Custom, "EMP-123456"),
            (Kind::Custom, "hunter\"2\n"),
            (Kind::Custom, "hunter\\\"2\\n"),
            (Kind::Custom, "grün"),
        ] {
            for around in [["", ""], ["key: \"", "\""], ["(", ")."], ["ü ", "?"]] {
                let expected = vec![(kind, text.to_owned())];
                if text != cut || around[1].is_empty() || around[1] == "\"" {
                    assert_eq!(found(&format!("{}{text}{}", around[0], around[1])), expected, "{text} in {around:?}");
                }
            }
        }
        let pair = format!("[default]\naws_access_key_id=AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = {secret}\n");
        assert_eq!(found(&pair), [(Kind::AwsKey, "AKIAIOSFODNN7EXAMPLE".into()), (Kind::AwsKey, secret.into())]);
        assert_eq!(found(&format!("\"SecretAccessKey\": \"{secret}\"")), [(Kind::AwsKey, secret.into())]);
    }

    #[test]
    fn what_is_none_stays() {
        for text in [
            "sk-short",
            "task-abcdefghijklmnopqrst",
            "ask-abcdefghijklmnopqrst",
            "AKIAIOSFODNN7EXAMPLEX",
            "4111 1111 1111 1112",
            "1700000000000 1234567890123",
            "3.14159265358979323",
            "@example.org",
            "a@b",
            "-----BEGIN PUBLIC KEY-----\nAAAA",
            "-----BEGIN ",
            "eyJhbGciOiJIUzI1NiJ9 eyJ",
            "aws_secret_access_key=",
            "EMP-12345",
            "REDACTED_CARD_4111111111111111",
            "41111111111111110000000000000000",
            "git checkout -b task-list",
            "",
        ] {
            assert_eq!(found(text), [], "{text}");
        }
    }

    #[test]
    fn several_are_found_in_order() {
        let text = format!("{PEM} EMP-000001 a@b.org,EMP-000002");
        let kinds: Vec<_> = found(&text).into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, [Kind::PrivateKey, Kind::Custom, Kind::Email, Kind::Custom]);
    }

    #[test]
    fn only_what_is_wanted_is_found() {
        let text = format!("{PEM} a@b.org 4111111111111111");
        let found = Detectors::new(&[Kind::Card], vec![], &[]).find(text.as_bytes());
        assert_eq!(found.into_iter().map(|one| one.kind).collect::<Vec<_>>(), [Kind::Card]);
    }

    #[test]
    fn hostile_texts_take_no_more_time_than_others() {
        for part in [
            "a",
            "-----BEGIN ",
            "-----BEGIN PRIVATE KEY-----",
            "4 ",
            "eyJaaaaaaaaa.",
            "a@",
            "a.",
            "sk-",
            "aws_secret_access_key=",
            "eyJaaaaaaaaa-",
            "a1.eyJ",
            "\u{e4}",
        ] {
            let text = part.repeat((50 << 10) / part.len());
            let started = std::time::Instant::now();
            all().find(text.as_bytes());
            assert!(started.elapsed().as_secs() < 20, "{part}");
        }
    }
}

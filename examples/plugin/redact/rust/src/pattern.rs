//! Shapes of secrets, in a language small enough to be matched in one pass over a text, whatever the text is.
//!
//! ```text
//! pattern    = one or more of: unit, unit "{" n "}", unit "{" n "," "}", unit "{" n "," m "}", unit "+"
//! unit       = "[" one or more of: character, character "-" character "]"   any of these ASCII characters
//!            | "\" character                                              this character
//!            | any other character                                        itself
//! ```
//!
//! Repetition takes as much as it can and gives nothing back; together with the ends of runs being remembered, this makes
//! the time linear in the text. A match does not begin or end inside a word: where its first or last character is a letter, a digit or
//! `_`, the one outside must be none. A pattern's first unit may not repeat, for the same reason.

/// The largest number in a pattern; `{n,}` and `+` have no limit.
pub const MAX_REPEAT: usize = 16384;
const NO_LIMIT: usize = usize::MAX;
/// Runs of units that may repeat more often than this are remembered.
const SHORT: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Unit {
    /// Bit per ASCII character.
    any_of: u128,
    at_least: usize,
    at_most: usize,
}

impl Unit {
    fn takes(&self, byte: u8) -> bool {
        byte < 128 && self.any_of >> byte & 1 == 1
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    units: Vec<Unit>,
}

pub fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Whether what is between `from` and `to` does not begin or end inside a word.
pub fn on_its_own(text: &[u8], from: usize, to: usize) -> bool {
    let cut = |inside: Option<&u8>, outside: Option<&u8>| {
        inside.copied().is_some_and(is_word) && outside.copied().is_some_and(is_word)
    };
    let before = from.checked_sub(1).and_then(|at| text.get(at));
    let last = to.checked_sub(1).and_then(|at| text.get(at));
    !cut(text.get(from), before) && !cut(last, text.get(to))
}

impl Pattern {
    /// A pattern from its text, or what is wrong with it. The text itself, which may tell much, is not repeated.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut units: Vec<Unit> = Vec::new();
        let mut rest = text.chars().enumerate().peekable();
        while let Some((at, one)) = rest.next() {
            let wrong = |what: &str| format!("character {}: {what}", at + 1);
            match one {
                '{' | '+' => {
                    let (at_least, at_most) = if one == '+' {
                        (1, NO_LIMIT)
                    } else {
                        let inside: String = rest.by_ref().map(|(_, one)| one).take_while(|one| *one != '}').collect();
                        repeat(&inside).ok_or_else(|| {
                            wrong(&format!("expected {{n}}, {{n,}} or {{n,m}} with 0 ≤ n ≤ m ≤ {MAX_REPEAT} and m > 0"))
                        })?
                    };
                    if units.len() == 1 && one == '+' {
                        return Err(wrong("the first unit of a pattern may not repeat without a limit"));
                    }
                    let unit = units.last_mut().ok_or_else(|| wrong("nothing to repeat"))?;
                    if (unit.at_least, unit.at_most) != (1, 1) {
                        return Err(wrong("repeated twice"));
                    }
                    (unit.at_least, unit.at_most) = (at_least, at_most);
                }
                '[' => {
                    let inside = class(&mut rest.by_ref().map(|(_, one)| one)).map_err(|what| wrong(&what))?;
                    units.push(Unit { any_of: inside, at_least: 1, at_most: 1 });
                }
                ']' | '}' => return Err(wrong("closes nothing; write \\ before it to mean it")),
                _ => {
                    let meant = if one == '\\' { rest.next().map(|(_, next)| next) } else { Some(one) };
                    let bit = meant.and_then(bit).ok_or_else(|| wrong("expected an ASCII character"))?;
                    units.push(Unit { any_of: bit, at_least: 1, at_most: 1 });
                }
            }
        }
        if units.iter().map(|unit| unit.at_least).sum::<usize>() < 4 {
            return Err("a pattern must want at least four characters, or it would hide half of every text".to_owned());
        }
        if units[0].at_least == 0 {
            return Err("the first unit of a pattern may not be absent".to_owned());
        }
        Ok(Self { units })
    }

    pub fn may_begin_with(&self, byte: u8) -> bool {
        self.units[0].takes(byte)
    }

    /// Where a match that begins at `from` ends. `runs` belong to this pattern and this text, and are empty at first.
    pub fn end_of(&self, text: &[u8], from: usize, runs: &mut Runs) -> Option<usize> {
        if !on_its_own(text, from, from) {
            return None;
        }
        runs.resize(self.units.len(), 0..0);
        let mut at = from;
        for (unit, known) in self.units.iter().zip(runs) {
            if unit.at_most <= SHORT {
                let run = text[at..].iter().take(unit.at_most).take_while(|byte| unit.takes(**byte)).count();
                if run < unit.at_least {
                    return None;
                }
                at += run;
                continue;
            }
            if !known.contains(&at) {
                let run = text[at..].iter().take_while(|byte| unit.takes(**byte)).count();
                *known = at..at + run;
            }
            let run = (known.end - at).min(unit.at_most);
            if run < unit.at_least {
                return None;
            }
            at += run;
        }
        on_its_own(text, from, at).then_some(at)
    }
}

/// Per unit of a pattern, the last run of its characters in a text: many matches may be tried within one.
pub type Runs = Vec<std::ops::Range<usize>>;

fn bit(one: char) -> Option<u128> {
    one.is_ascii().then(|| 1 << (one as u32))
}

fn repeat(inside: &str) -> Option<(usize, usize)> {
    let number = |digits: &str| {
        let short = !digits.is_empty() && digits.len() < 6 && digits.bytes().all(|byte| byte.is_ascii_digit());
        short.then(|| digits.parse::<usize>().ok())?
    };
    let (least, most) = match inside.split_once(',') {
        None => (number(inside)?, number(inside)?),
        Some((least, "")) => (number(least)?, NO_LIMIT),
        Some((least, most)) => (number(least)?, number(most)?),
    };
    (least <= most && most > 0 && least <= MAX_REPEAT && (most <= MAX_REPEAT || most == NO_LIMIT))
        .then_some((least, most))
}

fn class(rest: &mut impl Iterator<Item = char>) -> Result<u128, String> {
    let mut made = 0;
    let mut last: Option<char> = None;
    while let Some(one) = rest.next() {
        match one {
            ']' if made != 0 => return Ok(made),
            '^' if made == 0 => return Err("[^…] is not known here: say which characters are meant".to_owned()),
            '-' if last.is_some() => {
                let from = last.take().expect("checked above");
                match rest.next() {
                    Some(']') => return Ok(made | bit('-').unwrap_or(0)),
                    Some(to) if to.is_ascii() && from <= to => {
                        (from..=to).for_each(|one| made |= bit(one).unwrap_or(0));
                    }
                    _ => return Err("expected a range of ASCII characters such as a-z".to_owned()),
                }
            }
            _ => {
                let meant = if one == '\\' { rest.next() } else { Some(one) };
                let meant = meant.filter(char::is_ascii).ok_or("expected ASCII characters in [ ]")?;
                made |= 1 << (meant as u32);
                last = Some(meant);
            }
        }
    }
    Err("[ is not closed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pattern: &str, text: &str) -> Option<String> {
        let pattern = Pattern::parse(pattern).unwrap();
        let bytes = text.as_bytes();
        let mut runs = Runs::new();
        let starts = (0..bytes.len()).filter(|at| pattern.may_begin_with(bytes[*at]));
        let found = starts.filter_map(|at| Some(at..pattern.end_of(bytes, at, &mut runs)?)).next()?;
        Some(text[found].to_owned())
    }

    #[test]
    fn patterns_match() {
        for (pattern, text, expected) in [
            ("EMP-[0-9]{6}", "see EMP-123456.", Some("EMP-123456")),
            ("EMP-[0-9]{6}", "see EMP-1234567", None),
            ("EMP-[0-9]{6}", "TEMP-123456", None),
            ("EMP-[0-9]{6,}", "EMP-1234567", Some("EMP-1234567")),
            ("key=[a-c_-]+", "key=ab-c_d key=ab-c", Some("key=ab-c")),
            ("k=[\\]\\\\-]{2,3}", "k=]\\-", Some("k=]\\-")),
            ("a\\+b\\{[x-z]{0,2}c", "a+b{c", Some("a+b{c")),
            ("[A-Z]{2}[0-9]{4}", "XX1234", Some("XX1234")),
            ("id-[a-z]{1,100}x", "id-aaxid-x", None),
            ("abcd", "äabcdä", Some("abcd")),
        ] {
            assert_eq!(found(pattern, text).as_deref(), expected, "{pattern} in {text}");
        }
    }

    #[test]
    fn wrong_patterns_are_refused_without_being_repeated() {
        for pattern in [
            "",
            "abc",
            "[a-z",
            "[]abcd",
            "[^a]bcd",
            "[z-a]bcd",
            "[ä]bcd",
            "äbcd",
            "+abcd",
            "a{4}{2}",
            "abcd{",
            "abcd{x}",
            "abcd{3,2}",
            "abcd{0}",
            "abcd{20000}",
            "abcd]",
            "abcd}",
            "abcd\\",
            "[a-z]+abcd",
            "a{0,1}bcde",
            "abcd{-1}",
            "[a-ä]bcd",
        ] {
            let said = Pattern::parse(pattern).expect_err(pattern);
            assert!(pattern.len() < 4 || !said.contains(pattern), "{said}");
        }
    }
}

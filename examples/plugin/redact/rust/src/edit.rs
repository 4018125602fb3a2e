//! Changes to a JSON document that leave everything else as it stands, byte for byte.

use std::ops::Range;

use cpa_plugin::{Data, Value};

/// Replacements of parts of a document. They may be added in any order; of overlapping ones the first wins.
#[derive(Default)]
pub struct Edits {
    made: Vec<(Range<usize>, String)>,
}

impl Edits {
    pub fn replace(&mut self, at: &Range<usize>, with: String) {
        self.made.push((at.clone(), with));
    }

    /// Puts a member in front of those of an object.
    pub fn insert(&mut self, object: &Value, name: &str, json: &str) {
        let comma = if object.members().is_empty() { "" } else { "," };
        let at = object.at.start + 1;
        self.made.push((at..at, format!("{}:{json}{comma}", cpa_plugin::quoted(name))));
    }

    pub fn is_empty(&self) -> bool {
        self.made.is_empty()
    }

    pub fn apply(mut self, document: &str) -> String {
        self.made.sort_by_key(|(at, _)| at.start);
        let mut out = String::with_capacity(document.len() + 64);
        let mut done = 0;
        for (at, with) in &self.made {
            if at.start < done {
                continue; // within what was replaced
            }
            out.push_str(&document[done..at.start]);
            out.push_str(with);
            done = at.end;
        }
        out.push_str(&document[done..]);
        out
    }
}

/// Calls `visit` for every string in `value`, names of members included, with the name of the member that it is the
/// value of (of lists: that of the list). What it returns replaces the string.
pub fn strings<'v>(
    value: &'v Value,
    name: &'v str,
    edits: &mut Edits,
    visit: &mut impl FnMut(&'v str, &'v str) -> Option<String>,
) {
    match &value.data {
        Data::Text(text) => {
            if let Some(changed) = visit(name, text) {
                edits.replace(&value.at, cpa_plugin::quoted(&changed));
            }
        }
        Data::List(items) => items.iter().for_each(|item| strings(item, name, edits, visit)),
        Data::Object(members) => {
            for member in members {
                if let Some(changed) = visit("", &member.name) {
                    edits.replace(&member.name_at, cpa_plugin::quoted(&changed));
                }
                strings(&member.value, &member.name, edits, visit);
            }
        }
        _ => {}
    }
}

// needs:
/// `body` with one more member, in front of all others, which stay byte for byte. Nothing, which means "as it was", when it
/// has one of that name already or is no JSON object. `json` is the value, as JSON.
fn with_member(body: &[u8], name: &str, json: &str) -> Vec<u8> {
    let text = std::str::from_utf8(body).unwrap_or_default();
    let Some(Value { at, data: Data::Object(members) }) = parse(text) else {
        return Vec::new();
    };
    if members.iter().any(|member| member.name == name) {
        return Vec::new();
    }
    let comma = if members.is_empty() { "" } else { "," };
    format!("{{{}:{json}{comma}{}", quoted(name), &text[at.start + 1..at.end]).into_bytes()
}

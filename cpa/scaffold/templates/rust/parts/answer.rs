// needs:
/// Answers with a body; an empty one means "as it was".
fn answer_body(body: &[u8]) -> Answer {
    Ok(object(|o| o.bytes("Body", body)))
}

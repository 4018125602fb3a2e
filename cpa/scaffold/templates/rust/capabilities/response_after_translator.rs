// needs: answer request say
/// Answers in the client's format, in streams chunk by chunk; chained with other plugins. Here: looks, and changes nothing.
fn response_normalize_after(call: &Call) -> Answer {
    let request = request(call)?;
    if !request.flag("Stream") {
        say(call, "saw an answer for", "format", request.text("ToFormat").unwrap_or_default());
    }
    answer_body(b"")
}

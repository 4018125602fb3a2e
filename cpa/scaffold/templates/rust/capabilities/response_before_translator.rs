// needs: answer request say
/// Answers as the provider gave them, in streams chunk by chunk; chained with other plugins. Here: looks, and changes nothing.
fn response_normalize_before(call: &Call) -> Answer {
    let request = request(call)?;
    if !request.flag("Stream") {
        say(call, "saw an answer of", "format", request.text("FromFormat").unwrap_or_default());
    }
    answer_body(b"")
}

// needs: answer member read request say
/// Last change of a request before it goes to the provider, in the provider's format. Here: Chat Completions that name no
/// user get one.
fn request_normalize(call: &Call) -> Answer {
    let request = request(call)?;
    let body = read(&request, "Body")?;
    if request.text("ToFormat") != Some("openai") {
        return answer_body(b"");
    }
    let changed = with_member(&body, "user", &quoted(NAME));
    if !changed.is_empty() {
        say(call, "named the user", "model", request.text("Model").unwrap_or_default());
    }
    answer_body(&changed)
}

// needs: answer member read request
/// Answers between two formats that CPA has no translator for; in streams chunk by chunk. Here: from a format called
/// PROVIDER, which is the wanted one with a mark.
fn response_translate(call: &Call) -> Answer {
    let request = request(call)?;
    let body = read(&request, "Body")?;
    if request.text("FromFormat") != Some(PROVIDER) {
        return answer_body(b"");
    }
    answer_body(&with_member(&body, "translated_by", &quoted(NAME)))
}

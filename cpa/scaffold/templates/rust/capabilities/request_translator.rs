// needs: answer member read request
/// Requests between two formats that CPA has no translator for. Here: into a format called PROVIDER, which is the original
/// with a mark. An empty body leaves the pair to others.
fn request_translate(call: &Call) -> Answer {
    let request = request(call)?;
    let body = read(&request, "Body")?;
    if request.text("ToFormat") != Some(PROVIDER) {
        return answer_body(b"");
    }
    answer_body(&with_member(&body, "translated_by", &quoted(NAME)))
}

// needs: member read request
/// Whole answers on their way to the client. Here: a header, and a member of the body.
fn response_intercept_after(call: &Call) -> Answer {
    let body = read(&request(call)?, "Body")?;
    Ok(object(|o| {
        o.header("Headers", "X-Plugin", NAME);
        o.bytes("Body", &with_member(&body, "seen_by", &quoted(NAME)));
    }))
}

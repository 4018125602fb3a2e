// needs: read request say
/// Looks at every request of a client, in the client's own format; may change or refuse it.
const FORBIDDEN: &str = "open sesame";

fn request_intercept_before(call: &Call) -> Answer {
    let request = request(call)?;
    let body = read(&request, "Body")?;
    let model = request.text("RequestedModel").unwrap_or_default();
    if !String::from_utf8_lossy(&body).contains(FORBIDDEN) {
        say(call, "let a request pass", "model", model);
        return Ok(object(|_| {}));
    }
    say(call, "refused a request", "model", model);
    let refusal = format!(r#"{{"error":{{"type":"blocked","message":"{NAME} does not let this pass"}}}}"#);
    Ok(object(|o| {
        o.flag("Terminate", true);
        o.integer("StatusCode", 403);
        o.header("ResponseHeaders", "Content-Type", "application/json");
        o.bytes("ResponseBody", refusal.as_bytes());
    }))
}

/// The same once a credential is chosen, before every attempt. Nothing in the answer changes nothing.
fn request_intercept_after(_: &Call) -> Answer {
    Ok(object(|_| {}))
}

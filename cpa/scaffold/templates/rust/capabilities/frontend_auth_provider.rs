// needs: identifier request
/// Which clients are let in: those that send what the environment variable PLUGIN_CLIENT_KEY holds in X-Client-Key.
/// Without the variable nobody.
fn frontend_auth_identifier(_: &Call) -> Answer {
    identifier()
}

/// In the same time whatever is wrong with it.
fn same_key(sent: &[u8], wanted: &[u8]) -> bool {
    let different = sent.iter().zip(wanted.iter().cycle()).fold(0, |found, (one, other)| found | (one ^ other));
    !wanted.is_empty() && sent.len() == wanted.len() && std::hint::black_box(different) == 0
}

fn frontend_auth_authenticate(call: &Call) -> Answer {
    let request = request(call)?;
    let sent = request.get("Headers").and_then(|headers| headers.get("X-Client-Key"));
    let sent = sent.and_then(|values| values.items().first()).and_then(Value::as_text).unwrap_or_default();
    let wanted = std::env::var("PLUGIN_CLIENT_KEY").unwrap_or_default();
    let known = same_key(sent.as_bytes(), wanted.as_bytes());
    Ok(object(|o| {
        o.flag("Authenticated", known);
        if known {
            o.text("Principal", &format!("{NAME}-client"));
        }
    }))
}

// needs: request say
/// Told what every attempt at a provider cost.
fn usage_handle(call: &Call) -> Answer {
    let request = request(call)?;
    let tokens = request.get("Detail").and_then(|detail| detail.integer("TotalTokens")).unwrap_or_default();
    say(call, "tokens were used", "tokens", &tokens.to_string());
    Ok(object(|_| {}))
}

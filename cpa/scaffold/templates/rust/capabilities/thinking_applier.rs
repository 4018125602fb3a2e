// needs: answer identifier member read request
/// Reasoning settings of requests for this provider, in whatever way it wants them.
fn thinking_identifier(_: &Call) -> Answer {
    identifier()
}

fn thinking_apply(call: &Call) -> Answer {
    let request = request(call)?;
    let budget = request.get("Config").and_then(|config| config.integer("Budget")).unwrap_or_default();
    answer_body(&with_member(&read(&request, "Body")?, "reasoning_budget", &budget.to_string()))
}

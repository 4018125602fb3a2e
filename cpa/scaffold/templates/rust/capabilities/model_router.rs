// needs: request say
/// Sends the model "NAME:other" to the first provider that has credentials, as "other".
fn model_route(call: &Call) -> Answer {
    let request = request(call)?;
    let model = request.text("RequestedModel").and_then(|model| model.strip_prefix(NAME)?.strip_prefix(':'));
    let provider = request.get("AvailableProviders").and_then(|list| list.items().first()?.as_text());
    let (Some(model), Some(provider)) = (model.filter(|model| !model.is_empty()), provider) else {
        return Ok(object(|o| o.flag("Handled", false)));
    };
    say(call, "routed a request", "provider", provider);
    Ok(object(|o| {
        o.flag("Handled", true);
        o.text("TargetKind", "provider");
        o.text("Target", provider);
        o.text("TargetModel", model);
    }))
}

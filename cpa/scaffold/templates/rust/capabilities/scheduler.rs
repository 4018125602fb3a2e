// needs: request say
/// Which credential serves an attempt: an AuthID of the Candidates, or one of the built-in ways. An error denies it.
fn scheduler_pick(call: &Call) -> Answer {
    let request = request(call)?;
    say(call, "picks the first credential that works", "model", request.text("Model").unwrap_or_default());
    Ok(object(|o| {
        o.flag("Handled", true);
        o.text("DelegateBuiltin", "fill-first");
    }))
}

// needs: request say
/// Told once of every request that is over, however it ended: succeeded, failed, rejected or canceled.
fn request_complete(call: &Call) -> Answer {
    say(call, "a request is over", "outcome", request(call)?.text("Outcome").unwrap_or_default());
    Ok(object(|_| {}))
}

// needs: models
/// Models of the provider itself, and of each of its credentials.
fn model_static(_: &Call) -> Answer {
    models()
}

fn model_for_auth(_: &Call) -> Answer {
    models()
}

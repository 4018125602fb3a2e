// needs: models
/// Models for a provider that something else executes, asked for when the host starts.
fn model_register(_: &Call) -> Answer {
    models()
}

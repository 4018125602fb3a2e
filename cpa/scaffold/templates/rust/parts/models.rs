// needs:
/// What clients may ask for.
fn models() -> Answer {
    Ok(object(|o| {
        o.text("Provider", PROVIDER);
        o.list("Models", |models| {
            models.object(|model| {
                model.text("ID", &format!("{PROVIDER}-model"));
                model.text("Object", "model");
                model.text("OwnedBy", PROVIDER);
                model.text("DisplayName", &format!("A model of {NAME}"));
                model.integer("ContextLength", 32768);
            });
        });
    }))
}

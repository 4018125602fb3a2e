// needs:
/// The key that providers go by; the same for everything that this plugin does.
fn identifier() -> Answer {
    Ok(object(|o| o.text("identifier", PROVIDER)))
}

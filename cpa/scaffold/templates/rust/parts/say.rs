// needs:
/// A line in the log of CPA, as part of the request that `call` belongs to.
fn say(call: &Call, message: &str, about: &str, value: &str) {
    // A line that cannot be logged is no reason to fail.
    let _ = host_call(
        "host.log",
        &object(|o| {
            o.scope(call);
            o.text("level", "info");
            o.text("message", message);
            o.object("fields", |o| {
                o.text("plugin", NAME);
                o.text(about, value);
            });
        }),
    );
}

// needs:
/// A flag of the command line, `cpa --NAME-hello`: CPA starts, runs it, and ends.
fn command_line_register(_: &Call) -> Answer {
    Ok(object(|o| {
        o.list("Flags", |flags| {
            flags.object(|flag| {
                flag.text("Name", &format!("{NAME}-hello"));
                flag.text("Usage", "Say hello");
                flag.text("Type", "bool");
            });
        });
    }))
}

fn command_line_execute(_: &Call) -> Answer {
    Ok(object(|o| {
        o.bytes("Stdout", format!("Hello from {NAME}.\n").as_bytes());
        o.integer("ExitCode", 0);
    }))
}

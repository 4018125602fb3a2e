// needs:
/// A page that anybody may open: /v0/resource/plugins/NAME/status. Routes, which need the management key, go into a list
/// "routes" beside "resources", with a Method each.
fn management_register(_: &Call) -> Answer {
    Ok(object(|o| {
        o.list("resources", |pages| {
            pages.object(|page| {
                page.text("Path", "/status");
                page.text("Menu", NAME);
                page.text("Description", &format!("Whether {NAME} runs"));
            });
        });
    }))
}

fn management_handle(_: &Call) -> Answer {
    let page = format!("<!doctype html><title>{NAME}</title><p>{NAME} is running.</p>\n");
    Ok(object(|o| {
        o.integer("StatusCode", 200);
        o.header("Headers", "Content-Type", "text/html; charset=utf-8");
        o.bytes("Body", page.as_bytes());
    }))
}

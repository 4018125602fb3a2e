// needs: identifier read request say
/// Credential files whose "type" is PROVIDER, and signing in to get one.
fn auth_identifier(_: &Call) -> Answer {
    identifier()
}

fn auth_parse(call: &Call) -> Answer {
    let request = request(call)?;
    let file = read(&request, "RawJSON")?;
    let mine = request.text("Provider").is_some_and(|provider| provider.eq_ignore_ascii_case(PROVIDER));
    if mine {
        say(call, "found a credential", "file", request.text("FileName").unwrap_or_default());
    }
    Ok(object(|o| {
        o.flag("Handled", mine);
        if mine {
            o.object("Auth", |auth| {
                auth.text("Provider", PROVIDER);
                auth.text("Label", NAME);
                auth.bytes("StorageJSON", &file);
            });
        }
    }))
}

/// The operator opens URL in a browser. `State` has to be unguessable: replace this one by random letters.
fn auth_login_start(_: &Call) -> Answer {
    Ok(object(|o| {
        o.text("Provider", PROVIDER);
        o.text("URL", &format!("https://login.example.org/?client={NAME}"));
        o.text("State", &format!("replace-me-{NAME}"));
        o.text("ExpiresAt", "2030-01-01T00:00:00Z");
    }))
}

/// Asked again and again: "pending", then "success" with an Auth, or "error".
fn auth_login_poll(_: &Call) -> Answer {
    Ok(object(|o| {
        o.text("Status", "error");
        o.text("Message", &format!("{NAME} cannot sign anybody in yet"));
    }))
}

/// A fresh token for a credential; this one keeps the old.
fn auth_refresh(call: &Call) -> Answer {
    let stored = read(&request(call)?, "StorageJSON")?;
    Ok(object(|o| {
        o.object("Auth", |auth| {
            auth.text("Provider", PROVIDER);
            if !stored.is_empty() {
                auth.bytes("StorageJSON", &stored);
            }
        });
    }))
}

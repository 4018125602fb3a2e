// needs: identifier
/// Answers in the place of a provider. Clients reach it through models of this provider (capability model_provider, and a
/// credential with this "type"), or through a router. Bodies are Chat Completions; CPA translates for other clients.
fn executor_identifier(_: &Call) -> Answer {
    identifier()
}

fn answer_payload(json: &str) -> Answer {
    Ok(object(|o| {
        o.bytes("Payload", json.as_bytes());
        o.header("Headers", "Content-Type", "application/json");
    }))
}

fn executor_execute(_: &Call) -> Answer {
    answer_payload(&format!(
        r#"{{"id":"{PROVIDER}-1","object":"chat.completion","created":0,"model":"{PROVIDER}-model","choices":[{{"index":0,"message":{{"role":"assistant","content":"Hello from {NAME}."}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":1,"completion_tokens":4,"total_tokens":5}}}}"#
    ))
}

/// All chunks at once. For chunks as they come: answer without any, and call host.stream.emit from a thread of your own.
fn executor_execute_stream(_: &Call) -> Answer {
    let chunk = |delta: &str, finish: &str| {
        format!(
            r#"{{"id":"{PROVIDER}-1","object":"chat.completion.chunk","created":0,"model":"{PROVIDER}-model","choices":[{{"index":0,"delta":{delta},"finish_reason":{finish}}}]}}"#
        )
    };
    let hello = format!(r#"{{"role":"assistant","content":"Hello from {NAME}."}}"#);
    Ok(object(|o| {
        o.header("headers", "Content-Type", "text/event-stream");
        o.list("chunks", |chunks| {
            for made in [chunk(&hello, "null"), chunk("{}", r#""stop""#)] {
                chunks.object(|o| o.bytes("Payload", made.as_bytes()));
            }
        });
    }))
}

fn executor_count_tokens(_: &Call) -> Answer {
    answer_payload(r#"{"total_tokens":1}"#)
}

/// A plain HTTP request with a credential of this provider; hosts hardly ever ask for one.
fn executor_http_request(_: &Call) -> Answer {
    Ok(object(|o| {
        o.integer("StatusCode", 501);
        o.bytes("Body", b"not implemented");
    }))
}

// needs: identifier say
/* Credential files whose "type" is PROVIDER, and signing in to get one. */
static bool auth_identifier(cpa_call *call) { return identifier(call); }

static bool auth_parse(cpa_call *call) {
    const cpa_json *request = cpa_request(call);
    bool mine = cpa_is_nearly(cpa_string(request, "Provider"), PROVIDER);
    cpa_text file;
    if (!cpa_bytes(call, request, "RawJSON", &file))
        return cpa_fail(call, "invalid_request", "RawJSON is not base64");
    cpa_begin_object(&call->result, NULL);
    cpa_put_flag(&call->result, "Handled", mine);
    if (mine) {
        say(call, "found a credential", "file", cpa_string(request, "FileName"));
        cpa_begin_object(&call->result, "Auth");
        cpa_put(&call->result, "Provider", PROVIDER);
        cpa_put(&call->result, "Label", NAME);
        cpa_put_bytes(&call->result, "StorageJSON", file);
        cpa_end_object(&call->result);
    }
    cpa_end_object(&call->result);
    return true;
}

/* The operator opens URL in a browser. `State` has to be unguessable: replace this one by random letters. */
static bool auth_login_start(cpa_call *call) {
    cpa_begin_object(&call->result, NULL);
    cpa_put(&call->result, "Provider", PROVIDER);
    cpa_put(&call->result, "URL", "https://login.example.org/?client=" NAME);
    cpa_put(&call->result, "State", "replace-me-" NAME);
    cpa_put(&call->result, "ExpiresAt", "2030-01-01T00:00:00Z");
    cpa_end_object(&call->result);
    return true;
}

/* Asked again and again: "pending", then "success" with an Auth, or "error". */
static bool auth_login_poll(cpa_call *call) {
    cpa_begin_object(&call->result, NULL);
    cpa_put(&call->result, "Status", "error");
    cpa_put(&call->result, "Message", NAME " cannot sign anybody in yet");
    cpa_end_object(&call->result);
    return true;
}

/* A fresh token for a credential; this one keeps the old. */
static bool auth_refresh(cpa_call *call) {
    cpa_text stored;
    if (!cpa_bytes(call, cpa_request(call), "StorageJSON", &stored))
        return cpa_fail(call, "invalid_request", "StorageJSON is not base64");
    cpa_begin_object(&call->result, NULL);
    cpa_begin_object(&call->result, "Auth");
    cpa_put(&call->result, "Provider", PROVIDER);
    if (stored.len > 0)
        cpa_put_bytes(&call->result, "StorageJSON", stored);
    cpa_end_object(&call->result);
    cpa_end_object(&call->result);
    return true;
}

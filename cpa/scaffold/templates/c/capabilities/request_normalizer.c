// needs: read answer member say
/* Last change of a request before it goes to the provider, in the provider's format. Here: Chat Completions that name no
 * user get one. */
static bool request_normalize(cpa_call *call) {
    const cpa_json *request = cpa_request(call);
    cpa_text body, changed = {NULL, 0};
    if (!read_body(call, "Body", &body))
        return false;
    if (cpa_is(cpa_string(request, "ToFormat"), "openai"))
        changed = with_member(call, body, "user", "\"" NAME "\"");
    if (changed.len > 0)
        say(call, "named the user", "model", cpa_string(request, "Model"));
    return answer_body(call, changed);
}

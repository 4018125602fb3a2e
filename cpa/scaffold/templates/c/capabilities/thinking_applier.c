// needs: read answer identifier member
/* Reasoning settings of requests for this provider, in whatever way it wants them. */
static bool thinking_identifier(cpa_call *call) { return identifier(call); }

static bool thinking_apply(cpa_call *call) {
    char budget[24];
    cpa_text body;
    if (!read_body(call, "Body", &body))
        return false;
    const cpa_json *config = cpa_member(cpa_request(call), "Config");
    snprintf(budget, sizeof budget, "%lld", cpa_integer(config, "Budget", 0));
    return answer_body(call, with_member(call, body, "reasoning_budget", budget));
}

// needs: say
/* Told what every attempt at a provider cost. */
static bool usage_handle(cpa_call *call) {
    const cpa_json *request = cpa_request(call);
    char tokens[24];
    snprintf(tokens, sizeof tokens, "%lld", cpa_integer(cpa_member(request, "Detail"), "TotalTokens", 0));
    say(call, "tokens were used", "tokens", cpa_text_of(tokens));
    return true;
}

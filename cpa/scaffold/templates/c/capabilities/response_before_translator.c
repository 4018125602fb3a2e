// needs: read answer say
/* Answers as the provider gave them, in streams chunk by chunk; chained with other plugins. Here: looks, and changes nothing. */
static bool response_normalize_before(cpa_call *call) {
    const cpa_json *request = cpa_request(call);
    cpa_text body, as_it_was = {NULL, 0};
    if (!read_body(call, "Body", &body))
        return false;
    if (!cpa_flag(request, "Stream"))
        say(call, "saw an answer of", "format", cpa_string(request, "FromFormat"));
    return answer_body(call, as_it_was);
}

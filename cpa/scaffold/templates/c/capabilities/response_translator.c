// needs: read answer member
/* Answers between two formats that CPA has no translator for; in streams chunk by chunk. Here: from a format called
 * PROVIDER, which is the wanted one with a mark. */
static bool response_translate(cpa_call *call) {
    cpa_text body, nothing = {NULL, 0};
    if (!read_body(call, "Body", &body))
        return false;
    bool mine = cpa_is(cpa_string(cpa_request(call), "FromFormat"), PROVIDER);
    return answer_body(call, mine ? with_member(call, body, "translated_by", "\"" NAME "\"") : nothing);
}

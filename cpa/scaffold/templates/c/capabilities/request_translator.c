// needs: read answer member
/* Requests between two formats that CPA has no translator for. Here: into a format called PROVIDER, which is the original
 * with a mark. An empty body leaves the pair to others. */
static bool request_translate(cpa_call *call) {
    cpa_text body, nothing = {NULL, 0};
    if (!read_body(call, "Body", &body))
        return false;
    bool mine = cpa_is(cpa_string(cpa_request(call), "ToFormat"), PROVIDER);
    return answer_body(call, mine ? with_member(call, body, "translated_by", "\"" NAME "\"") : nothing);
}

// needs: read member
/* Whole answers on their way to the client. Here: a header, and a member of the body. */
static bool response_intercept_after(cpa_call *call) {
    cpa_text body;
    if (!read_body(call, "Body", &body))
        return false;
    cpa_begin_object(&call->result, NULL);
    cpa_put_header(&call->result, "Headers", "X-Plugin", NAME);
    cpa_put_bytes(&call->result, "Body", with_member(call, body, "seen_by", "\"" NAME "\""));
    cpa_end_object(&call->result);
    return true;
}

/* Answers with a body; an empty one means "as it was". */
static bool answer_body(cpa_call *call, cpa_text body) {
    cpa_begin_object(&call->result, NULL);
    cpa_put_bytes(&call->result, "Body", body);
    cpa_end_object(&call->result);
    return true;
}

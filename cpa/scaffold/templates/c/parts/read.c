/* The body of a request, which messages carry in base64. False: the call has failed. */
static bool read_body(cpa_call *call, const char *name, cpa_text *body) {
    if (cpa_bytes(call, cpa_request(call), name, body))
        return true;
    return cpa_fail(call, "invalid_request", "the body is not base64");
}

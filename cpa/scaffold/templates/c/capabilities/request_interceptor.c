// needs: read contains say
/* Looks at every request of a client, in the client's own format; may change or refuse it. */
#define FORBIDDEN "open sesame"
#define REFUSAL "{\"error\":{\"type\":\"blocked\",\"message\":\"" NAME " does not let this pass\"}}"

static bool request_intercept_before(cpa_call *call) {
    const cpa_json *request = cpa_request(call);
    cpa_text body;
    if (!read_body(call, "Body", &body))
        return false;
    cpa_begin_object(&call->result, NULL);
    if (contains(body, FORBIDDEN)) {
        say(call, "refused a request", "model", cpa_string(request, "RequestedModel"));
        cpa_put_flag(&call->result, "Terminate", true);
        cpa_put_integer(&call->result, "StatusCode", 403);
        cpa_put_header(&call->result, "ResponseHeaders", "Content-Type", "application/json");
        cpa_put_bytes(&call->result, "ResponseBody", cpa_text_of(REFUSAL));
    } else
        say(call, "let a request pass", "model", cpa_string(request, "RequestedModel"));
    cpa_end_object(&call->result);
    return true;
}

/* The same once a credential is chosen, before every attempt. Nothing in the answer changes nothing. */
static bool request_intercept_after(cpa_call *call) {
    (void)call;
    return true;
}

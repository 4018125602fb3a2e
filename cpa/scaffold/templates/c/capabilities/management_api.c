// needs:
/* A page that anybody may open: /v0/resource/plugins/NAME/status. Routes, which need the management key, go into a list
 * "routes" beside "resources", with a Method each. */
static bool management_register(cpa_call *call) {
    cpa_begin_object(&call->result, NULL);
    cpa_begin_list(&call->result, "resources");
    cpa_begin_object(&call->result, NULL);
    cpa_put(&call->result, "Path", "/status");
    cpa_put(&call->result, "Menu", NAME);
    cpa_put(&call->result, "Description", "Whether " NAME " runs");
    cpa_end_object(&call->result);
    cpa_end_list(&call->result);
    cpa_end_object(&call->result);
    return true;
}

static bool management_handle(cpa_call *call) {
    cpa_begin_object(&call->result, NULL);
    cpa_put_integer(&call->result, "StatusCode", 200);
    cpa_put_header(&call->result, "Headers", "Content-Type", "text/html; charset=utf-8");
    cpa_put_bytes(&call->result, "Body", cpa_text_of("<!doctype html><title>" NAME "</title><p>" NAME " is running.</p>\n"));
    cpa_end_object(&call->result);
    return true;
}

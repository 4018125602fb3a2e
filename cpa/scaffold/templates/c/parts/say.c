/* A line in the log of CPA, as part of the request that `call` belongs to. */
static void say(cpa_call *call, const char *message, const char *about, cpa_text value) {
    cpa_writer request = {0};
    cpa_text error;
    cpa_begin_object(&request, NULL);
    cpa_put_scope(&request, call);
    cpa_put(&request, "level", "info");
    cpa_put(&request, "message", message);
    cpa_begin_object(&request, "fields");
    cpa_put(&request, "plugin", NAME);
    cpa_put_text(&request, about, value);
    cpa_end_object(&request);
    cpa_end_object(&request);
    cpa_host_call(call, "host.log", &request, &error); /* a line that cannot be logged is no reason to fail */
}

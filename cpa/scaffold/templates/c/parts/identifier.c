/* The key that providers go by; the same for everything that this plugin does. */
static bool identifier(cpa_call *call) {
    cpa_begin_object(&call->result, NULL);
    cpa_put(&call->result, "identifier", PROVIDER);
    cpa_end_object(&call->result);
    return true;
}

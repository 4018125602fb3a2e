/* What clients may ask for. */
static bool models(cpa_call *call) {
    cpa_writer *out = &call->result;
    cpa_begin_object(out, NULL);
    cpa_put(out, "Provider", PROVIDER);
    cpa_begin_list(out, "Models");
    cpa_begin_object(out, NULL);
    cpa_put(out, "ID", PROVIDER "-model");
    cpa_put(out, "Object", "model");
    cpa_put(out, "OwnedBy", PROVIDER);
    cpa_put(out, "DisplayName", "A model of " NAME);
    cpa_put_integer(out, "ContextLength", 32768);
    cpa_end_object(out);
    cpa_end_list(out);
    cpa_end_object(out);
    return true;
}

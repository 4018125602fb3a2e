// needs: say
/* Sends the model "NAME:other" to the first provider that has credentials, as "other". */
static bool model_route(cpa_call *call) {
    const cpa_json *request = cpa_request(call);
    const cpa_json *providers = cpa_member(request, "AvailableProviders");
    const cpa_json *first = providers != NULL && providers->kind == CPA_ARRAY ? providers->first : NULL;
    cpa_text model = cpa_string(request, "RequestedModel"), mark = cpa_text_of(NAME ":");
    bool mine = first != NULL && first->kind == CPA_STRING && model.len > mark.len &&
                memcmp(model.at, mark.at, mark.len) == 0;
    cpa_begin_object(&call->result, NULL);
    cpa_put_flag(&call->result, "Handled", mine);
    if (mine) {
        cpa_put(&call->result, "TargetKind", "provider");
        cpa_put_text(&call->result, "Target", first->text);
        cpa_put_text(&call->result, "TargetModel", (cpa_text){model.at + mark.len, model.len - mark.len});
        say(call, "routed a request", "provider", first->text);
    }
    cpa_end_object(&call->result);
    return true;
}

// needs: say
/* Which credential serves an attempt: an AuthID of the Candidates, or one of the built-in ways. An error denies it. */
static bool scheduler_pick(cpa_call *call) {
    say(call, "picks the first credential that works", "model", cpa_string(cpa_request(call), "Model"));
    cpa_begin_object(&call->result, NULL);
    cpa_put_flag(&call->result, "Handled", true);
    cpa_put(&call->result, "DelegateBuiltin", "fill-first");
    cpa_end_object(&call->result);
    return true;
}

// needs: say
/* Told once of every request that is over, however it ended: succeeded, failed, rejected or canceled. */
static bool request_complete(cpa_call *call) {
    say(call, "a request is over", "outcome", cpa_string(cpa_request(call), "Outcome"));
    return true;
}

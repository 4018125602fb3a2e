// needs: models
/* Models of the provider itself, and of each of its credentials. */
static bool model_static(cpa_call *call) { return models(call); }

static bool model_for_auth(cpa_call *call) { return models(call); }

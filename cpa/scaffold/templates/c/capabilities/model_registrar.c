// needs: models
/* Models for a provider that something else executes, asked for when the host starts. */
static bool model_register(cpa_call *call) { return models(call); }

// needs: models nothing
// Models for a provider that something else executes, asked for when the host starts.
func modelRegister(nothing) (any, error) { return models, nil }

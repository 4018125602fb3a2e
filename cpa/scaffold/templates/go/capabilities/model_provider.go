// needs: models nothing
// Models of the provider itself, and of each of its credentials.
func modelStatic(nothing) (any, error) { return models, nil }

func modelForAuth(nothing) (any, error) { return models, nil }

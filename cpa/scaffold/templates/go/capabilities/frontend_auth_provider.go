// needs: nothing; imports: crypto/subtle os
// Which clients are let in: those that send what the environment variable PLUGIN_CLIENT_KEY holds in X-Client-Key. Without
// the variable nobody.
func frontendAuthIdentifier(nothing) (any, error) {
	return plugin.Identifier{Identifier: provider}, nil
}

func frontendAuthAuthenticate(request struct{ Headers plugin.Header }) (any, error) {
	wanted, sent := os.Getenv("PLUGIN_CLIENT_KEY"), request.Headers["X-Client-Key"]
	if wanted == "" || len(sent) == 0 || subtle.ConstantTimeCompare([]byte(sent[0]), []byte(wanted)) != 1 {
		return plugin.Client{}, nil
	}
	return plugin.Client{Authenticated: true, Principal: name + "-client"}, nil
}

// needs: say nothing; imports: strings time
// Credential files whose "type" is the provider, and signing in to get one.
func authIdentifier(nothing) (any, error) { return plugin.Identifier{Identifier: provider}, nil }

func authParse(request struct {
	Provider, FileName string
	RawJSON            []byte
}) (any, error) {
	if !strings.EqualFold(request.Provider, provider) {
		return plugin.AuthParsed{}, nil // not one of mine
	}
	say("", "found a credential", "file", request.FileName)
	auth := plugin.Auth{Provider: provider, Label: name, StorageJSON: request.RawJSON}
	return plugin.AuthParsed{Handled: true, Auth: auth}, nil
}

// The operator opens URL in a browser. State has to be unguessable: replace this one by random letters.
func authLoginStart(nothing) (any, error) {
	return plugin.LoginStarted{
		Provider:  provider,
		URL:       "https://login.example.org/?client=" + name,
		State:     "replace-me-" + name,
		ExpiresAt: time.Now().Add(10 * time.Minute),
	}, nil
}

// Asked again and again: "pending", then "success" with an Auth, or "error".
func authLoginPoll(nothing) (any, error) {
	return plugin.LoginPolled{Status: "error", Message: name + " cannot sign anybody in yet"}, nil
}

// A fresh token for a credential; this one keeps the old.
func authRefresh(request struct{ StorageJSON []byte }) (any, error) {
	return plugin.AuthRefreshed{Auth: plugin.Auth{Provider: provider, StorageJSON: request.StorageJSON}}, nil
}

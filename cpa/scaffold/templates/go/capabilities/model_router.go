// needs: say; imports: strings
// Sends the model "NAME:other" to the first provider that has credentials, as "other".
func modelRoute(request struct {
	RequestedModel     string
	AvailableProviders []string
	Scope              string `json:"host_callback_id"`
}) (any, error) {
	model := strings.TrimPrefix(request.RequestedModel, name+":")
	if model == "" || model == request.RequestedModel || len(request.AvailableProviders) == 0 {
		return map[string]any{"Handled": false}, nil
	}
	target := request.AvailableProviders[0]
	say(request.Scope, "routed a request", "provider", target)
	return map[string]any{"Handled": true, "TargetKind": "provider", "Target": target, "TargetModel": model}, nil
}

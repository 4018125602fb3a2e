// needs: member nothing
// Reasoning settings of requests for this provider, in whatever way it wants them.
func thinkingIdentifier(nothing) (any, error) { return plugin.Identifier{Identifier: provider}, nil }

func thinkingApply(request struct {
	Config struct{ Budget int }
	Body   []byte
}) (any, error) {
	return plugin.Body{Body: withMember(request.Body, "reasoning_budget", request.Config.Budget)}, nil
}

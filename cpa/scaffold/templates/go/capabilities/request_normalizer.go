// needs: member say
// Last change of a request before it goes to the provider, in the provider's format. Here: Chat Completions that name no
// user get one.
func requestNormalize(request plugin.TransformRequest) (any, error) {
	if request.ToFormat != "openai" {
		return plugin.Body{}, nil
	}
	changed := withMember(request.Body, "user", name)
	if len(changed) > 0 {
		say("", "named the user", "model", request.Model)
	}
	return plugin.Body{Body: changed}, nil
}

// needs: say
// Answers in the client's format, in streams chunk by chunk; chained with other plugins. Here: looks, and changes nothing.
func responseNormalizeAfter(request plugin.TransformRequest) (any, error) {
	if !request.Stream {
		say("", "saw an answer for", "format", request.ToFormat)
	}
	return plugin.Body{}, nil
}

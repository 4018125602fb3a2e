// needs: say
// Answers as the provider gave them, in streams chunk by chunk; chained with other plugins. Here: looks, and changes nothing.
func responseNormalizeBefore(request plugin.TransformRequest) (any, error) {
	if !request.Stream {
		say("", "saw an answer of", "format", request.FromFormat)
	}
	return plugin.Body{}, nil
}

// needs: member
// Answers between two formats that CPA has no translator for; in streams chunk by chunk. Here: from a format called like
// the provider, which is the wanted one with a mark.
func responseTranslate(request plugin.TransformRequest) (any, error) {
	if request.FromFormat != provider {
		return plugin.Body{}, nil
	}
	return plugin.Body{Body: withMember(request.Body, "translated_by", name)}, nil
}

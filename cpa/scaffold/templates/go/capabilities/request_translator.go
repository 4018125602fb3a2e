// needs: member
// Requests between two formats that CPA has no translator for. Here: into a format called like the provider, which is the
// original with a mark. An empty body leaves the pair to others.
func requestTranslate(request plugin.TransformRequest) (any, error) {
	if request.ToFormat != provider {
		return plugin.Body{}, nil
	}
	return plugin.Body{Body: withMember(request.Body, "translated_by", name)}, nil
}

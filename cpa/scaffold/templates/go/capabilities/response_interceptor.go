// needs: member
// Whole answers on their way to the client. Here: a header, and a member of the body.
func responseInterceptAfter(request struct{ Body []byte }) (any, error) {
	return map[string]any{
		"Headers": plugin.Header{"X-Plugin": {name}},
		"Body":    withMember(request.Body, "seen_by", name),
	}, nil
}

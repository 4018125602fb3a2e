// needs: nothing say; imports: bytes
// Looks at every request of a client, in the client's own format; may change or refuse it.
const (
	forbidden = "open sesame"
	refusal   = `{"error":{"type":"blocked","message":"` + name + ` does not let this pass"}}`
)

func requestInterceptBefore(request struct {
	RequestedModel string
	Body           []byte
	Scope          string `json:"host_callback_id"`
}) (any, error) {
	if !bytes.Contains(request.Body, []byte(forbidden)) {
		say(request.Scope, "let a request pass", "model", request.RequestedModel)
		return nil, nil
	}
	say(request.Scope, "refused a request", "model", request.RequestedModel)
	return map[string]any{
		"Terminate":       true,
		"StatusCode":      403,
		"ResponseHeaders": plugin.Header{"Content-Type": {"application/json"}},
		"ResponseBody":    []byte(refusal),
	}, nil
}

// The same once a credential is chosen, before every attempt. Nothing in the answer changes nothing.
func requestInterceptAfter(nothing) (any, error) { return nil, nil }

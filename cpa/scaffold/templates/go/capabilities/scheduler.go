// needs: say
// Which credential serves an attempt: an AuthID of the Candidates, or one of the built-in ways. An error denies it.
func schedulerPick(request struct{ Model string }) (any, error) {
	say("", "picks the first credential that works", "model", request.Model)
	return map[string]any{"Handled": true, "DelegateBuiltin": "fill-first"}, nil
}

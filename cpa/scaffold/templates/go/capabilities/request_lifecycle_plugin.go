// needs: say
// Told once of every request that is over, however it ended: succeeded, failed, rejected or canceled.
func requestComplete(request struct {
	Outcome string
	Scope   string `json:"host_callback_id"`
}) (any, error) {
	say(request.Scope, "a request is over", "outcome", request.Outcome)
	return nil, nil
}

// needs:
// say writes a line into the log of CPA. The scope, the host_callback_id of a call, makes it part of a client's request.
func say(scope, message, about, value string) {
	// A line that cannot be logged is no reason to fail.
	_ = plugin.CallHost("host.log", map[string]any{
		"host_callback_id": scope,
		"level":            "info",
		"message":          message,
		"fields":           map[string]string{"plugin": name, about: value},
	}, nil)
}

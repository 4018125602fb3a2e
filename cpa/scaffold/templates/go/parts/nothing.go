// needs:
// nothing is the request of methods that are only asked.
type nothing struct{}

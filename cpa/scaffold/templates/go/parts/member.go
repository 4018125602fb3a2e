// needs:; imports: bytes encoding/json
// withMember is a body with one more member, in front of all others, which stay byte for byte. It is nothing, which means
// "as it was", when the body has one of that name already or is no JSON object.
func withMember(body []byte, key string, value any) []byte {
	var members map[string]json.RawMessage
	if json.Unmarshal(body, &members) != nil || members == nil || members[key] != nil {
		return nil
	}
	member, err := json.Marshal(map[string]any{key: value})
	if err != nil {
		return nil
	}
	rest := bytes.TrimSpace(body)[1:] // behind the brace
	if len(members) > 0 {
		rest = append([]byte(","), rest...)
	}
	return append(member[:len(member)-1], rest...)
}

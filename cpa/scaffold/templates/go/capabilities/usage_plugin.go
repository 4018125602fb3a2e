// needs: say; imports: strconv
// Told what every attempt at a provider cost.
func usageHandle(request struct{ Detail struct{ TotalTokens int } }) (any, error) {
	say("", "tokens were used", "tokens", strconv.Itoa(request.Detail.TotalTokens))
	return nil, nil
}

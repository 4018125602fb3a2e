// needs:
// models are what clients may ask for.
var models = plugin.Models{
	Provider: provider,
	Models: []plugin.Model{{
		ID:            provider + "-model",
		Object:        "model",
		OwnedBy:       provider,
		DisplayName:   "A model of " + name,
		ContextLength: 32768,
	}},
}

// needs: nothing
// A page that anybody may open: /v0/resource/plugins/NAME/status. Routes, which need the management key, go into a list
// "routes" beside "resources", with a Method each.
func managementRegister(nothing) (any, error) {
	status := plugin.Resource{Path: "/status", Menu: name, Description: "Whether " + name + " runs"}
	return plugin.Pages{Resources: []plugin.Resource{status}}, nil
}

func managementHandle(nothing) (any, error) {
	return plugin.Response{
		StatusCode: 200,
		Headers:    plugin.Header{"Content-Type": {"text/html; charset=utf-8"}},
		Body:       []byte("<!doctype html><title>" + name + "</title><p>" + name + " is running.</p>\n"),
	}, nil
}

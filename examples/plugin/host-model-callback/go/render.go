package main

import (
	"encoding/json"
	"strconv"

	plugin "cpa-examples/lib/go"
)

// render makes the page; what is empty is not on it.
func render(want wish, done outcome) string {
	return plugin.Page{
		Title: title,
		Rows:  rows(want, done),
		Sections: []plugin.Section{
			{Heading: "Error", Class: "error", Text: errorText(done.Err)},
			{Heading: "Close Error", Class: "error", Text: errorText(done.CloseErr)},
			{Heading: "Headers", Text: headersText(done.Headers)},
			{Heading: "Stream Chunks", Text: string(done.Chunks)},
			{Heading: "Body", Text: plugin.Indented(done.Body)},
		},
	}.HTML()
}

func rows(want wish, done outcome) [][2]string {
	mode := "non-stream"
	if want.Stream {
		mode = "stream"
	}
	table := [][2]string{
		{"model", want.Model},
		{"mode", mode},
		{"entry_protocol", want.EntryProtocol},
		{"exit_protocol", want.ExitProtocol},
		{"stream", strconv.FormatBool(want.Stream)},
		{"implicit_close", strconv.FormatBool(want.ImplicitClose)},
	}
	if want.Stream {
		closing := explicitClose
		if want.ImplicitClose {
			closing = implicitClose
		}
		table = append(table, [2]string{"close", closing})
	}
	return append(table, [2]string{"status", strconv.Itoa(done.Status)})
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func headersText(headers plugin.Header) string {
	if len(headers) == 0 {
		return ""
	}
	text, err := json.MarshalIndent(headers, "", "  ")
	if err != nil {
		return ""
	}
	return string(text)
}

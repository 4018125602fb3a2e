package main

import (
	"bytes"
	"encoding/json"
	"html"
	"strconv"
	"strings"
)

// render makes the page. Every text that is not ours is escaped.
func render(want wish, done outcome) string {
	var out strings.Builder
	out.WriteString("<!doctype html><html><head><meta charset=\"utf-8\"><title>Host Model Callback</title></head><body>" +
		"<main><h1>Host Model Callback</h1><dl>")
	for _, row := range rows(want, done) {
		out.WriteString("<dt>" + html.EscapeString(row[0]) + "</dt><dd><code>" + html.EscapeString(row[1]) + "</code></dd>")
	}
	out.WriteString("</dl>")
	for _, section := range [][2]string{
		{"Error", errorText(done.Err)},
		{"Close Error", errorText(done.CloseErr)},
		{"Headers", headersText(done.Headers)},
		{"Stream Chunks", string(done.Chunks)},
		{"Body", indented(done.Body)},
	} {
		if section[1] != "" {
			out.WriteString("<h2>" + section[0] + "</h2><pre>" + html.EscapeString(section[1]) + "</pre>")
		}
	}
	out.WriteString("</main></body></html>\n")
	return out.String()
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

func headersText(headers map[string][]string) string {
	if len(headers) == 0 {
		return ""
	}
	text, err := json.MarshalIndent(headers, "", "  ")
	if err != nil {
		return ""
	}
	return string(text)
}

// indented is the body with two blanks per level if it is JSON, else as it is.
func indented(body []byte) string {
	var out bytes.Buffer
	if json.Indent(&out, body, "", "  ") != nil {
		return string(body)
	}
	return out.String()
}

package plugin

import (
	"bytes"
	"encoding/json"
	"html"
	"strings"
)

// Page is a simple one: a title, what was asked for, and what came of it. Every text in it is escaped.
type Page struct {
	Title    string
	Rows     [][2]string // names and values
	Sections []Section
}

// Section has a text or a list below its heading; without either it is left out.
type Section struct {
	Heading string
	Class   string // of the text, for style sheets
	Text    string
	List    []string
}

// HTML writes the page.
func (p Page) HTML() string {
	var out strings.Builder
	title := html.EscapeString(p.Title)
	out.WriteString("<!doctype html><html><head><meta charset=\"utf-8\"><title>" + title + "</title></head><body>" +
		"<main><h1>" + title + "</h1><dl>")
	for _, row := range p.Rows {
		out.WriteString("<dt>" + html.EscapeString(row[0]) + "</dt><dd><code>" + html.EscapeString(row[1]) + "</code></dd>")
	}
	out.WriteString("</dl>")
	for _, section := range p.Sections {
		section.write(&out)
	}
	out.WriteString("</main></body></html>\n")
	return out.String()
}

func (s Section) write(out *strings.Builder) {
	if s.Text == "" && len(s.List) == 0 {
		return
	}
	out.WriteString("<h2>" + html.EscapeString(s.Heading) + "</h2>")
	if s.Text != "" {
		out.WriteString("<pre")
		if s.Class != "" {
			out.WriteString(" class=\"" + html.EscapeString(s.Class) + "\"")
		}
		out.WriteString(">")
		if s.Text[0] == '\n' {
			out.WriteString("\n") // browsers drop one there
		}
		out.WriteString(html.EscapeString(s.Text) + "</pre>")
	}
	if len(s.List) > 0 {
		out.WriteString("<ul>")
		for _, item := range s.List {
			out.WriteString("<li><code>" + html.EscapeString(item) + "</code></li>")
		}
		out.WriteString("</ul>")
	}
}

// Indented is JSON with two blanks per level, and everything else as it is.
func Indented(body []byte) string {
	var out bytes.Buffer
	if json.Indent(&out, body, "", "  ") != nil {
		return string(body)
	}
	return out.String()
}

// First value of a header or a parameter, or nothing.
func First(values Header, name string) string {
	if found := values[name]; len(found) > 0 {
		return found[0]
	}
	return ""
}

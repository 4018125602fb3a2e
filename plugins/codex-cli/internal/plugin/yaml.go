package plugin

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// yamlReader goes through one document. Between entries it stands at the start of a line.
type yamlReader struct {
	text string
	at   int
}

func readYAML(text string) (Settings, error) {
	if !utf8.ValidString(text) {
		return nil, errors.New("not UTF-8")
	}
	text = strings.ReplaceAll(strings.TrimPrefix(text, "\ufeff"), "\r\n", "\n")
	reader := &yamlReader{text: text}
	settings, err := reader.document()
	if err != nil {
		return nil, fmt.Errorf("line %d: %w", 1+strings.Count(text[:reader.at], "\n"), err)
	}
	return settings, nil
}

func (y *yamlReader) document() (Settings, error) {
	y.skipEmptyLines()
	if line := y.line(); line == "---" || strings.HasPrefix(line, "--- ") {
		y.at += 3
		if rest := strings.TrimSpace(line[3:]); rest == "" || rest[0] == '#' {
			y.nextLine()
		}
		y.skipEmptyLines()
	}
	settings := Settings{}
	if y.ended() {
		return settings, nil
	}
	indent := y.indent()
	if y.peek(indent) == '{' {
		y.at += indent
		members, err := y.flowMapping(0)
		if err != nil {
			return nil, err
		}
		if err := y.endOfLine(); err != nil {
			return nil, err
		}
		y.skipEmptyLines()
		if !y.ended() {
			return nil, errors.New("something follows the settings")
		}
		return members, nil
	}
	if err := y.entries(settings, indent, 0); err != nil {
		return nil, err
	}
	if !y.ended() {
		return nil, errors.New("wrong indentation")
	}
	return settings, nil
}

// entries reads a block mapping whose keys are indented by so many blanks.
func (y *yamlReader) entries(settings Settings, indent, depth int) error {
	for !y.ended() && y.indent() == indent {
		if y.peek(indent) == '\t' {
			return errors.New("wrong indentation")
		}
		y.at += indent
		if err := y.entry(settings, indent, depth); err != nil {
			return err
		}
		y.skipEmptyLines()
	}
	if !y.ended() && y.indent() > indent {
		return errors.New("wrong indentation")
	}
	return nil
}

// items reads a block list whose dashes are indented by so many blanks.
func (y *yamlReader) items(indent, depth int) (setting, error) {
	found := setting{opaque: true, list: []setting{}}
	for !y.ended() && y.indent() == indent && strings.HasPrefix(y.line()[indent:]+" ", "- ") {
		y.at += indent + 1
		for y.peek(0) == ' ' {
			y.at++
		}
		text := withoutComment(y.line())
		if strings.HasPrefix(text+" ", "- ") || text != "" && strings.IndexByte("[{\"'&*!|>", text[0]) < 0 && colon(text) >= 0 {
			return setting{}, errors.New("a list or a mapping cannot begin behind a dash here")
		}
		item, err := y.value(indent, depth+1)
		if err != nil {
			return setting{}, err
		}
		found.list = append(found.list, item)
		y.skipEmptyLines()
	}
	return found, nil
}

// ---- lines ----

func (y *yamlReader) line() string {
	rest := y.text[y.at:]
	if end := strings.IndexByte(rest, '\n'); end >= 0 {
		return rest[:end]
	}
	return rest
}

func (y *yamlReader) nextLine() {
	y.at += len(y.line())
	if y.at < len(y.text) {
		y.at++
	}
}

func (y *yamlReader) indent() int {
	line := y.line()
	return len(line) - len(strings.TrimLeft(line, " "))
}

func (y *yamlReader) peek(ahead int) byte {
	if y.at+ahead < len(y.text) {
		return y.text[y.at+ahead]
	}
	return 0
}

func (y *yamlReader) skipEmptyLines() {
	for y.at < len(y.text) {
		if line := strings.TrimSpace(y.line()); line != "" && line[0] != '#' {
			return
		}
		y.nextLine()
	}
}

// ended is also true at the mark that ends a document.
func (y *yamlReader) ended() bool {
	return y.at >= len(y.text) || y.line() == "..." || strings.HasPrefix(y.line(), "... ")
}

// endOfLine goes to the next line; there may be a comment on this one.
func (y *yamlReader) endOfLine() error {
	rest := y.line()
	if text := strings.TrimLeft(rest, " \t"); text != "" && (text[0] != '#' || len(text) == len(rest)) {
		return fmt.Errorf("unexpected %q", text)
	}
	y.nextLine()
	return nil
}

// ---- block style ----

// entry reads `key: value` and all lines that belong to it.
func (y *yamlReader) entry(settings Settings, indent, depth int) error {
	key, err := y.key()
	if err != nil {
		return err
	}
	if _, double := settings[key]; double {
		return fmt.Errorf("%q is there twice", key)
	}
	for y.peek(0) == ' ' || y.peek(0) == '\t' {
		y.at++
	}
	settings[key], err = y.value(indent, depth)
	return err
}

func (y *yamlReader) key() (string, error) {
	if first := y.peek(0); first == '"' || first == '\'' {
		key, err := y.quoted()
		if err != nil {
			return "", err
		}
		y.at += len(y.line()) - len(strings.TrimLeft(y.line(), " "))
		if y.peek(0) != ':' {
			return "", errors.New("expected a colon behind the key")
		}
		y.at++
		return key, nil
	}
	line := y.line()
	end := colon(line)
	if end < 0 {
		return "", fmt.Errorf("expected a mapping of settings, got %q", line)
	}
	key := strings.TrimSpace(line[:end])
	if err := checkPlain(key); err != nil || strings.Contains(key, " #") {
		return "", fmt.Errorf("%q cannot be a key", key)
	}
	y.at += end + 1
	return key, nil
}

// colon is where the colon is that ends a key, or -1.
func colon(line string) int {
	for i := 0; i < len(line); i++ {
		if line[i] == ':' && (i+1 == len(line) || line[i+1] == ' ' || line[i+1] == '\t') {
			return i
		}
	}
	return -1
}

// value of an entry whose key is indented by so many blanks.
func (y *yamlReader) value(indent, depth int) (setting, error) {
	if depth > maxDepth {
		return setting{}, errors.New("nested too deeply")
	}
	switch first := y.peek(0); first {
	case '"', '\'':
		text, err := y.quoted()
		if err != nil {
			return setting{}, err
		}
		return setting{text: text}, y.endOfLine()
	case '[', '{':
		found, err := y.flowValue(0)
		if err != nil {
			return setting{}, err
		}
		return found, y.endOfLine()
	case '|', '>':
		return y.blockScalar(indent)
	case '&', '*', '!':
		y.nextLine()
		y.skipEmptyLines()
		y.skipList(indent, true)
		return setting{opaque: true}, nil
	}
	text := withoutComment(y.line())
	if text != "" {
		if err := checkPlain(text); err != nil {
			return setting{}, err
		}
		if colon(text) >= 0 {
			return setting{}, errors.New("a mapping cannot begin behind a key")
		}
		y.nextLine()
		return y.continued(text, indent)
	}
	y.nextLine()
	y.skipEmptyLines()
	if y.ended() {
		return setting{plain: true}, nil
	}
	if item := strings.HasPrefix(strings.TrimLeft(y.line(), " ")+" ", "- "); y.indent() > indent || item && y.indent() == indent {
		first := strings.TrimLeft(y.line(), " ")
		switch inner := y.indent(); {
		case item:
			return y.items(inner, depth+1)
		case strings.IndexByte("[{&*!|>\"'", first[0]) >= 0 && colon(first) < 0 || first[0] == '{' || first[0] == '[':
			y.at += inner
			return y.value(indent, depth+1)
		case colon(first) >= 0:
			found := setting{opaque: true, members: Settings{}}
			return found, y.entries(found.members, inner, depth+1)
		}
		return y.continued("", indent)
	}
	return setting{plain: true}, nil
}

// continued adds the further lines of a plain scalar.
func (y *yamlReader) continued(text string, indent int) (setting, error) {
	for y.skipEmptyLines(); !y.ended() && y.indent() > indent; y.skipEmptyLines() {
		more := withoutComment(y.line())
		if strings.HasPrefix(y.line(), "\t") || colon(more) >= 0 {
			return setting{}, errors.New("wrong indentation")
		}
		text = strings.TrimLeft(text+" "+more, " ")
		y.nextLine()
	}
	return setting{text: text, plain: true}, nil
}

// skipNested passes over the rest of a value that nobody here reads.
func (y *yamlReader) skipNested(indent int) {
	y.nextLine()
	for y.skipEmptyLines(); !y.ended() && y.indent() > indent; y.skipEmptyLines() {
		y.nextLine()
	}
}

// skipList is skipNested; items of a list may be as far to the left as its key.
func (y *yamlReader) skipList(indent int, items bool) {
	for !y.ended() {
		if !(y.indent() > indent || items && y.indent() == indent && strings.HasPrefix(y.line()[indent:]+" ", "- ")) {
			return
		}
		y.skipNested(indent)
	}
}

// blockScalar reads `|` and `>`, whose lines come after it.
func (y *yamlReader) blockScalar(indent int) (setting, error) {
	head := withoutComment(y.line())
	marks := strings.Trim(head[1:], "+-123456789")
	if marks != "" || len(head) > 3 {
		return setting{}, fmt.Errorf("unexpected %q", head)
	}
	y.nextLine()
	depth := 0
	if digits := strings.Trim(head[1:], "+-"); digits != "" {
		depth = indent + int(digits[0]-'0')
	}
	var lines []string
	for y.at < len(y.text) {
		blank := strings.TrimSpace(y.line()) == ""
		if !blank && depth == 0 && y.indent() > indent {
			depth = y.indent()
		}
		if !blank && (depth == 0 || y.indent() < depth) {
			break
		}
		if line := y.line(); len(line) > depth {
			lines = append(lines, line[depth:])
		} else {
			lines = append(lines, "")
		}
		y.nextLine()
	}
	text := strings.Join(lines, "\n")
	if head[0] == '>' {
		text = folded(text)
	}
	text = strings.TrimRight(text, "\n")
	if !strings.Contains(head, "-") && text != "" {
		text += "\n"
	}
	return setting{text: text}, nil
}

// folded makes one blank of one line end, and n-1 line ends of n.
func folded(text string) string {
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '\n' {
			out.WriteByte(text[i])
			continue
		}
		ends := 1
		for i+1 < len(text) && (text[i+1] == '\n' || text[i+1] == ' ') {
			i++
			if text[i] == '\n' {
				ends++
			}
		}
		if ends == 1 {
			out.WriteByte(' ')
		}
		out.WriteString(strings.Repeat("\n", ends-1))
	}
	return out.String()
}

func withoutComment(line string) string {
	for i := 0; i < len(line); i++ {
		if line[i] == '#' && (i == 0 || line[i-1] == ' ' || line[i-1] == '\t') {
			return strings.TrimSpace(line[:i])
		}
	}
	return strings.TrimSpace(line)
}

// checkPlain refuses what cannot be written without quotes.
func checkPlain(text string) error {
	if text == "" {
		return errors.New("something is missing")
	}
	special := strings.ContainsRune(",[]{}#&*!|>'\"%@`", rune(text[0]))
	if first := text[0]; first == '-' || first == '?' || first == ':' {
		special = len(text) == 1 || text[1] == ' '
	}
	if special {
		return fmt.Errorf("unexpected %q", text)
	}
	return nil
}

package plugin

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Quotes and brackets: what may go over several lines without regard to their indentation.

// Deeper collections are refused: the reader calls itself once per level.
const maxDepth = 64

// quoted reads a string in quotes, which may go over several lines.
func (y *yamlReader) quoted() (string, error) {
	quote := y.text[y.at]
	y.at++
	var out strings.Builder
	for y.at < len(y.text) {
		char := y.text[y.at]
		y.at++
		switch {
		case char == '\'' && quote == char && y.peek(0) == quote:
			out.WriteByte(quote)
			y.at++
		case char == quote:
			return out.String(), nil
		case char == '\\' && quote == '"':
			if err := y.escape(&out); err != nil {
				return "", err
			}
		case char == '\n':
			text := strings.TrimRight(out.String(), " \t")
			ends := 1
			for strings.IndexByte(" \t\n", y.peek(0)) >= 0 && y.at < len(y.text) {
				if y.text[y.at] == '\n' {
					ends++
				}
				y.at++
			}
			out.Reset()
			out.WriteString(text + folded(strings.Repeat("\n", ends)))
		default:
			out.WriteByte(char)
		}
	}
	return "", errors.New("a quote is not closed")
}

const (
	escapes = "0abtnvfre \"/\\N_LP\t"
	meant   = "\x00\a\b\t\n\v\f\r\x1b \"/\\\u0085\u00a0\u2028\u2029\t"
)

func (y *yamlReader) escape(out *strings.Builder) error {
	char := y.peek(0)
	y.at++
	if char == '\n' { // the line goes on
		for y.peek(0) == ' ' || y.peek(0) == '\t' {
			y.at++
		}
		return nil
	}
	if digits := map[byte]int{'x': 2, 'u': 4, 'U': 8}[char]; digits > 0 && y.at+digits <= len(y.text) {
		code, err := strconv.ParseUint(y.text[y.at:y.at+digits], 16, 32)
		if err == nil && utf8.ValidRune(rune(code)) {
			y.at += digits
			out.WriteRune(rune(code))
			return nil
		}
	}
	if index := strings.IndexByte(escapes, char); index >= 0 && y.at <= len(y.text) {
		out.WriteRune([]rune(meant)[index])
		return nil
	}
	return errors.New("unknown escape in quotes")
}

func (y *yamlReader) skipBlanks() {
	for y.at < len(y.text) {
		switch char := y.text[y.at]; {
		case char == '#' && strings.IndexByte(" \t\n", y.text[y.at-1]) >= 0:
			y.nextLine()
		case strings.IndexByte(" \t\n", char) >= 0:
			y.at++
		default:
			return
		}
	}
}

func (y *yamlReader) flowMapping(depth int) (Settings, error) {
	members := Settings{}
	err := y.flowItems('}', func() error {
		key, err := y.flowValue(depth + 1)
		if err != nil {
			return err
		}
		if _, double := members[key.text]; key.opaque || double {
			return fmt.Errorf("%q cannot be a key here", key.text)
		}
		value := setting{plain: true}
		if y.skipBlanks(); y.peek(0) == ':' {
			y.at++
			if y.skipBlanks(); strings.IndexByte(",}", y.peek(0)) < 0 {
				value, err = y.flowValue(depth + 1)
			}
		}
		members[key.text] = value
		return err
	})
	return members, err
}

// flowItems reads what is between brackets, with a comma behind each but the last, where it may be.
func (y *yamlReader) flowItems(end byte, item func() error) error {
	y.at++
	for {
		y.skipBlanks()
		if y.peek(0) == end {
			y.at++
			return nil
		}
		if err := item(); err != nil {
			return err
		}
		y.skipBlanks()
		switch y.peek(0) {
		case ',':
			y.at++
		case end:
		default:
			return fmt.Errorf("expected a comma or %q", end)
		}
	}
}

func (y *yamlReader) flowValue(depth int) (setting, error) {
	if depth > maxDepth {
		return setting{}, errors.New("nested too deeply")
	}
	switch y.peek(0) {
	case '{':
		members, err := y.flowMapping(depth)
		return setting{opaque: true, members: members}, err
	case '[':
		found := setting{opaque: true, list: []setting{}}
		err := y.flowItems(']', func() error {
			item, err := y.flowValue(depth + 1)
			if y.skipBlanks(); err == nil && y.peek(0) == ':' { // a pair is a mapping of its own
				y.at++
				y.skipBlanks()
				_, err = y.flowValue(depth + 1)
				item = setting{opaque: true}
			}
			found.list = append(found.list, item)
			return err
		})
		return found, err
	case '"', '\'':
		text, err := y.quoted()
		return setting{text: text}, err
	case '&', '*', '!':
		return setting{opaque: true}, y.marked(depth)
	}
	start := y.at
	for ; y.at < len(y.text); y.at++ {
		char, next := y.text[y.at], y.peek(1)
		if strings.IndexByte(",[]{}\n", char) >= 0 || char == ':' && (next == 0 || strings.IndexByte(" \t\n,[]{}", next) >= 0) ||
			char == '#' && y.at > start && strings.IndexByte(" \t", y.text[y.at-1]) >= 0 {
			break
		}
	}
	text := strings.TrimSpace(y.text[start:y.at])
	return setting{text: text, plain: true}, checkPlain(text)
}

// marked passes over a tag, an anchor or an alias, and the value behind it.
func (y *yamlReader) marked(depth int) error {
	for y.at < len(y.text) && strings.IndexByte(" \t\n,[]{}", y.text[y.at]) < 0 {
		y.at++
	}
	if y.skipBlanks(); y.at == len(y.text) || strings.IndexByte(",]}:", y.text[y.at]) >= 0 {
		return nil
	}
	_, err := y.flowValue(depth + 1)
	return err
}

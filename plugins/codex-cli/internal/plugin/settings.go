package plugin

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Settings are the plugin's own part of the configuration, by name.
type Settings map[string]setting

// setting is a scalar, a list, a mapping, or something that this reader only knows how to pass over.
type setting struct {
	text    string
	plain   bool // written without quotes, so that it may mean more than its text
	opaque  bool // no scalar: a list, a mapping, an alias
	list    []setting
	members Settings
}

// ReadSettings takes config_yaml apart. It understands mappings, lists and scalars, in YAML's block and flow style; tags,
// anchors and aliases are passed over, because the standard library knows no YAML.
func ReadSettings(yaml []byte) (Settings, error) {
	settings, err := readYAML(string(yaml))
	if err != nil {
		return nil, fmt.Errorf("plugin settings: %w", err)
	}
	return settings, nil
}

func (s setting) null() bool {
	return s.plain && (s.text == "" || s.text == "~" || s.text == "null" || s.text == "Null" || s.text == "NULL")
}

// scalar is false where the setting is absent or null, which is the same.
func (s Settings) scalar(name, kind string) (value setting, present bool, err error) {
	value, present = s[name]
	switch {
	case !present || value.null():
		return value, false, nil
	case value.opaque:
		return value, false, fmt.Errorf("%s: expected %s, got a list or a mapping", name, kind)
	}
	return value, true, nil
}

// Text is a setting as it is written.
func (s Settings) Text(name, otherwise string) (string, error) {
	value, present, err := s.scalar(name, "a string")
	if err != nil || !present {
		return otherwise, err
	}
	return value.text, nil
}

// Flag is a boolean, in any spelling of YAML 1.1 or 1.2.
func (s Settings) Flag(name string, otherwise bool) (bool, error) {
	value, present, err := s.scalar(name, "a boolean")
	if err != nil || !present {
		return otherwise, err
	}
	switch strings.ToLower(value.text) {
	case "y", "yes", "on", "true":
		if value.plain {
			return true, nil
		}
	case "n", "no", "off", "false":
		if value.plain {
			return false, nil
		}
	}
	return otherwise, fmt.Errorf("%s: expected a boolean, got %q", name, value.text)
}

// Number is a number that is finite.
func (s Settings) Number(name string, otherwise float64) (float64, error) {
	value, present, err := s.scalar(name, "a number")
	if err != nil || !present {
		return otherwise, err
	}
	if value.plain {
		number, err := strconv.ParseFloat(strings.ReplaceAll(value.text, "_", ""), 64)
		if err == nil && !math.IsNaN(number) && !math.IsInf(number, 0) {
			return number, nil
		}
	}
	return otherwise, fmt.Errorf("%s: expected a number, got %q", name, value.text)
}

// Texts is a list of strings; nil where it is absent or null.
func (s Settings) Texts(name string) ([]string, error) {
	value, present := s[name]
	if !present || !value.opaque && value.null() {
		return nil, nil
	}
	if value.list == nil {
		return nil, fmt.Errorf("%s: expected a list of strings, got %s", name, value.kind())
	}
	texts := make([]string, len(value.list))
	for i, item := range value.list {
		if item.opaque || item.null() {
			return nil, fmt.Errorf("%s[%d]: expected a string, got %s", name, i, item.kind())
		}
		texts[i] = item.text
	}
	return texts, nil
}

// Map is a mapping of strings to strings, where null is the empty one; nil where it is absent or null.
func (s Settings) Map(name string) (map[string]string, error) {
	value, present := s[name]
	if !present || !value.opaque && value.null() {
		return nil, nil
	}
	if value.members == nil {
		return nil, fmt.Errorf("%s: expected a mapping of strings to strings, got %s", name, value.kind())
	}
	texts := make(map[string]string, len(value.members))
	for key, item := range value.members {
		switch {
		case item.opaque:
			return nil, fmt.Errorf("%s.%s: expected a string, got %s", name, key, item.kind())
		case item.null():
			texts[key] = ""
		default:
			texts[key] = item.text
		}
	}
	return texts, nil
}

// kind says what a value is, for messages.
func (s setting) kind() string {
	switch {
	case s.list != nil:
		return "a list"
	case s.members != nil:
		return "a mapping"
	case s.opaque:
		return "an alias or a tag"
	case s.null():
		return "null"
	}
	return strconv.Quote(s.text)
}

// Integer is a whole number.
func (s Settings) Integer(name string, otherwise int) (int, error) {
	value, present, err := s.scalar(name, "an integer")
	if err != nil || !present {
		return otherwise, err
	}
	if value.plain {
		digits := strings.ReplaceAll(value.text, "_", "")
		if number, err := strconv.ParseInt(digits, 0, strconv.IntSize); err == nil {
			return int(number), nil
		}
		if number, err := strconv.ParseFloat(digits, 64); err == nil && number == math.Trunc(number) && math.Abs(number) < 1<<53 {
			return int(number), nil
		}
	}
	return otherwise, fmt.Errorf("%s: expected an integer, got %q", name, value.text)
}

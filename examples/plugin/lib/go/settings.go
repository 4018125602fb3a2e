package plugin

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Settings are the plugin's own part of the configuration, by name.
type Settings map[string]setting

// setting is a value that is a scalar, or one that this reader only knows how to pass over.
type setting struct {
	text   string
	plain  bool // written without quotes, so that it may mean more than its text
	opaque bool // a list, a mapping, an alias
}

// ReadSettings takes config_yaml apart. It understands mappings of scalars, in YAML's block and flow style; lists and
// mappings in them are passed over, because the standard library knows no YAML. Take a YAML package if you need those.
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
	switch value.text {
	case "y", "Y", "yes", "Yes", "YES", "on", "On", "ON":
		return true, nil
	case "n", "N", "no", "No", "NO", "off", "Off", "OFF":
		return false, nil
	case "true", "True", "TRUE":
		if value.plain {
			return true, nil
		}
	case "false", "False", "FALSE":
		if value.plain {
			return false, nil
		}
	}
	return otherwise, fmt.Errorf("%s: expected a boolean, got %q", name, value.text)
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

package plugin

import (
	"reflect"
	"testing"
)

func TestListsAndMappings(t *testing.T) {
	for _, text := range []string{
		"a: [x, \"y z\"]\nm: {gpt-5: gpt-5, 'o 3': o3, none: }\nn: 3\n",
		"a:\n    - x\n    - \"y z\" # why\nm:\n    gpt-5: gpt-5\n    'o 3': o3\n    none:\nn: 3\n",
		"a:\n- x\n- y z\nm: {gpt-5: gpt-5,\n  o 3: o3, none: ~}\nn: 3\n",
		"{a: [x, y z], m: {gpt-5: gpt-5, o 3: o3, none: null}, n: 3}\n",
		"a:\n  [x,\n   y z]\nm:\n  {gpt-5: gpt-5, o 3: o3, none: null}\nn: 3\n",
	} {
		settings, err := ReadSettings([]byte(text))
		if err != nil {
			t.Fatalf("%s%v", text, err)
		}
		list, err := settings.Texts("a")
		if err != nil || !reflect.DeepEqual(list, []string{"x", "y z"}) {
			t.Errorf("%s%q %v", text, list, err)
		}
		mapped, err := settings.Map("m")
		if err != nil || !reflect.DeepEqual(mapped, map[string]string{"gpt-5": "gpt-5", "o 3": "o3", "none": ""}) {
			t.Errorf("%s%q %v", text, mapped, err)
		}
		if number, err := settings.Number("n", 0); err != nil || number != 3 {
			t.Errorf("%s%v %v", text, number, err)
		}
	}
}

func TestWhatIsWrongIsNamed(t *testing.T) {
	for text, expected := range map[string]string{
		"a: x":             `a: expected a list of strings, got "x"`,
		"a: {b: c}":        `a: expected a list of strings, got a mapping`,
		"a: [x, [y]]":      `a[1]: expected a string, got a list`,
		"a:\n  - x\n  -\n": `a[1]: expected a string, got null`,
	} {
		settings, err := ReadSettings([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := settings.Texts("a"); err == nil || err.Error() != expected {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, text := range []string{"a: [x", "a:\n  b: c\n d: e\n", "a:\n  - b: c\n", "\ta: b"} {
		if settings, err := ReadSettings([]byte(text)); err == nil {
			t.Errorf("%q: %v", text, settings)
		}
	}
}

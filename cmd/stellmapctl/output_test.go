package main

import (
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// A text is a text to every reader of YAML, those of YAML 1.1 included, be it a
// value or a name: it is quoted at least where the library quotes one that is no node.
func TestTextsSurviveYAML(t *testing.T) {
	for _, text := range []string{
		"no", "No", "NO", "nO", "n", "N", "y", "yes", "yEs", "on", "On", "oN", "off", "OFF", "true", "True", "null", "~", "", "=", "<<",
		"1", "01", "0x1", "1e3", "1.4", "1_000", "+1", ".inf", ".NaN", "1:30", "-12:30:45.5", "190:20", "12:99", "10.0.0.7:8080", "2026-01-01",
		"2026-09-21T14:13:20.123Z", "none", "north", "a: b", "- a", "#", "a #b", "@a", "`", "{", "[", "&a", "*a", "!a", "%a", "|", ">", " a", "a ", "a\nb",
	} {
		want, err := yaml.Marshal(map[string]string{text: text})
		if err != nil {
			t.Fatal(err)
		}
		got, err := asYAML(map[string]string{text: text})
		if err != nil {
			t.Fatal(err)
		}
		if quotes(got) < quotes(want) {
			t.Errorf("%q is written as %s, and by the library as %s", text, got, want)
		}
		var read map[string]string
		if err := yaml.Unmarshal(got, &read); err != nil || len(read) != 1 || read[text] != text {
			t.Errorf("%q is written as %s, and read as %q, %v", text, got, read, err)
		}
	}
}

func quotes(text []byte) int {
	return strings.Count(string(text), `"`) + strings.Count(string(text), "'")
}

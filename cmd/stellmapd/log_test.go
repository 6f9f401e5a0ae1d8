package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// What a caller makes up stays within the line of the log that tells of it, in either format:
// it makes up no line of its own, and sends the terminal no commands.
func TestALogLineCannotBeMadeUp(t *testing.T) {
	const made = "web-1\nlevel=ERROR msg=\"made up\"\r\n\x1b[2J\x00\u2028{\"level\":\"ERROR\"}"
	for _, format := range []string{"text", "json"} {
		var c Config
		c.Log.Level, c.Log.Format = "info", format
		var out bytes.Buffer
		newLogger(c, &out).Warn("a proxy has rejected a response", "node", made, "error", errors.New(made), "bytes", []byte(made))
		said := out.String()
		if n := strings.Count(said, "\n"); n != 1 || !strings.HasSuffix(said, "\n") || strings.ContainsAny(said, "\r\x1b\x00") {
			t.Errorf("%s: %d lines: %q", format, n, said)
		}
	}
}

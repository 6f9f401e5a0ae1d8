package registry

import (
	"errors"
	"testing"

	"github.com/stellmap/stellmap/internal/corpus"
)

// A cursor is read as one that is written the same again, or refused with its field.
func FuzzCursor(f *testing.F) {
	for _, c := range []HomedCursor{
		{}, {Home: CursorHome{Incarnation: "cafe", Member: 2}, Place: Cursor{View: "view-1", Run: 3, Offset: 7}},
		{Home: CursorHome{Incarnation: "a b", Member: 1<<64 - 1}, Place: Cursor{Run: -1, Offset: -1}},
	} {
		f.Add(c.String())
	}
	corpus.Add(f, "a place", HomedCursor{Home: CursorHome{Incarnation: "cafe", Member: 2}, Place: Cursor{View: "view-1", Run: 3, Offset: 7}}.String())
	corpus.Add(f, "slashes", "Ly8vLw")
	corpus.Add(f, "not base64", "not base64!")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCursor(text)
		if err != nil {
			var invalid *ValidationError
			if !errors.As(err, &invalid) {
				t.Errorf("%q is refused with %v", text, err)
			}
			return
		}
		if again, err := ParseCursor(c.String()); err != nil || again != c {
			t.Errorf("%q is read as %+v, and that as %+v, %v", text, c, again, err)
		}
	})
}

// A selector is read or refused, and what is read matches the same labels each time.
func FuzzSelector(f *testing.F) {
	for _, s := range []string{"", "a", "!a", "a=b", "a==b", "a!=b", "a in (b,c)", "a notin (b)", "a in (", "a in ()", "a=b,,c", "a in (b c),!d", " , ", "=", "!!a", "a=(in)"} {
		f.Add(s)
	}
	for name, s := range map[string]string{"one of two": "a in (b,c)", "none of two": "a notin (b,c),!d", "a list without an end": "a in (", "marks alone": "!!a,=, "} {
		corpus.Add(f, name, s)
	}
	labels := PairsOf(map[string]string{"a": "b", "c": "", "in": "notin"})
	f.Fuzz(func(t *testing.T, text string) {
		all, err := parseSelector(text)
		if err != nil {
			return
		}
		again, err := parseSelector(text)
		if err != nil || len(again) != len(all) || len(all) > len(text)+1 {
			t.Fatalf("%q is read as %v, and then as %v, %v", text, all, again, err)
		}
		for i := range all {
			if all[i].matches(labels) != again[i].matches(labels) {
				t.Errorf("%q matches once, and then not", text)
			}
		}
	})
}

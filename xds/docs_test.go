package xds

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

const conformanceDocs = "../docs/xds-conformance.md"

// The page lists each case with its rule and where that is from, as the files
// themselves say: no rule without a case, and no case that the page does not show.
func TestTheConformanceDocs(t *testing.T) {
	text, err := os.ReadFile(conformanceDocs)
	if err != nil {
		t.Fatal(err)
	}
	page := string(text)
	for _, protocol := range []string{"sotw", "delta"} {
		begin := fmt.Sprintf("<!-- the cases of %s, written by the test -->\n", protocol)
		head, rest, ok := strings.Cut(page, begin)
		_, tail, ok2 := strings.Cut(rest, "<!-- end -->")
		if !ok || !ok2 {
			t.Fatalf("the page has no place for the cases of %s", protocol)
		}
		page = head + begin + tableOf(conformanceCases(t), protocol) + "<!-- end -->" + tail
	}
	if rewriting() {
		if err := os.WriteFile(conformanceDocs, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if page != string(text) {
		t.Errorf("%s differs from what the cases say of themselves: write it anew with -rewrite and read the difference", conformanceDocs)
	}
}

func tableOf(cases []conformanceCase, protocol string) string {
	var out strings.Builder
	out.WriteString("| Case | Rule | From |\n|---|---|---|\n")
	for _, c := range cases {
		if strings.HasPrefix(c.id, protocol+"-") {
			fmt.Fprintf(&out, "| `%s` | %s | %s |\n", c.id, c.rule, c.source)
		}
	}
	return out.String()
}

// readCase takes the rule and its source from the first paragraph of a file.
func readCase(t *testing.T, id, path string) conformanceCase {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	c := conformanceCase{id: id, path: path}
	var rule []string
	for line := range strings.Lines(string(text)) {
		words, comment := strings.CutPrefix(strings.TrimSpace(line), "# ")
		if !comment {
			break
		}
		if source, ok := strings.CutPrefix(words, "From: "); ok {
			c.source = source
		} else {
			rule = append(rule, words)
		}
	}
	if c.rule = strings.Join(rule, " "); c.rule == "" || c.source == "" {
		t.Fatalf("%s does not begin with a rule and where it is from", path)
	}
	return c
}

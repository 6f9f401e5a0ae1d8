package client

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// exampleTB is what the world of an example has in place of a test.
type exampleTB struct {
	testing.TB
	cleanups []func()
}

func (*exampleTB) Helper()                           {}
func (*exampleTB) Logf(string, ...any)               {}
func (*exampleTB) Errorf(format string, args ...any) { fmt.Printf(format+"\n", args...) }
func (*exampleTB) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
func (*exampleTB) Fatal(args ...any)                 { panic(fmt.Sprint(args...)) }
func (e *exampleTB) Cleanup(f func())                { e.cleanups = append(e.cleanups, f) }

// StartServers are two servers of a registry, in which there are instances of orders
// that answer.
func StartServers(ids ...string) (addresses []string, end func()) {
	tb := &exampleTB{}
	w := newWorld(tb)
	for _, id := range ids {
		w.backend(id, "z1", 100)
	}
	addresses = []string{w.serve().address, w.serve().address}
	return addresses, func() {
		for n := len(tb.cleanups) - 1; n >= 0; n-- {
			tb.cleanups[n]()
		}
	}
}

// TestTheExamplesOfTheClientDocs shows that what docs/client.md shows is what the examples
// do, which are run.
func TestTheExamplesOfTheClientDocs(t *testing.T) {
	flat := func(s string) string { return regexp.MustCompile(`(?m)^\s+`).ReplaceAllString(s, "") }
	docs := string(must(os.ReadFile("../docs/client.md"))(t))
	examples := flat(string(must(os.ReadFile("example_test.go"))(t)))
	shown := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(docs, -1)
	for _, one := range shown {
		for part := range strings.SplitSeq(one[1], "\n\n") {
			if !strings.Contains(examples, flat(part)) {
				t.Errorf("no example does this:\n%s", part)
			}
		}
	}
	mustEqual(t, "that something is shown", len(shown) >= 4, true)
}

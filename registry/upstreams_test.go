package registry

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// patternsBy are some patterns, sorted as nodes and documents have them.
func patternsBy(dice *rand.Rand, most int) []string {
	var out []string
	for range dice.IntN(most) {
		out = append(out, []string{"*", "a", "b", "a.b", "c"}[dice.IntN(5)]+"."+[]string{"x", "xy", "y"}[dice.IntN(3)])
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// covers says whether all that one pattern allows another does, too.
func covers(wide, narrow string) bool {
	namespace, all := strings.CutPrefix(wide, allOf)
	return wide == narrow || all && narrow[strings.LastIndexByte(narrow, '.')+1:] == namespace
}

// What a proxy is told of is each pattern of one list that a pattern of the other
// covers, as if each were held against each.
func TestUpstreamsAreWhatBothListsHave(t *testing.T) {
	dice := rand.New(rand.NewPCG(1, 2))
	for range 2_000 {
		u := Upstreams{May: patternsBy(dice, 8)}
		if u.May == nil {
			u.May = []string{}
		}
		declared := patternsBy(dice, 8)
		var want []string
		for _, w := range declared {
			for _, m := range u.May {
				if covers(m, w) {
					want = append(want, w)
				}
				if covers(w, m) {
					want = append(want, m)
				}
			}
		}
		if got := u.Of(declared); !slices.Equal(got, sorted(want)) {
			t.Fatalf("of %v those that may be of %v are %v, want %v", declared, u.May, got, sorted(want))
		}
	}
}

// BenchmarkUpstreamsOf is what a stream waits for when it begins or its document is
// edited: so many declared patterns against a document that is full.
func BenchmarkUpstreamsOf(b *testing.B) {
	list := func(n int, pattern string) []string {
		var out []string
		for i := range n {
			out = append(out, fmt.Sprintf(pattern, i))
		}
		return out
	}
	u := Upstreams{May: list(upstreamPatternsMax, "s%05d.prod")}
	for _, declared := range []int{1_000, 10_000} {
		of := list(declared, "s%05d.prod")
		b.Run(fmt.Sprintf("declared=%d", declared), func(b *testing.B) {
			for b.Loop() {
				u.Of(of)
			}
		})
	}
	b.Run("declared=*", func(b *testing.B) {
		for b.Loop() {
			u.Of([]string{"*.prod"})
		}
	})
}

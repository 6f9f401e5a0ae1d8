package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// diffCellsMax bounds the table that equal lines are found by; what is longer is shown
// as all that goes and all that comes.
const diffCellsMax = 4 << 20

// diffContext is how many lines are shown around those that differ.
const diffContext = 2

// contentDiff is how what a proxy has becomes what it should have.
func contentDiff(has, wants *proxyContent) []string {
	before, known := contentLines(has)
	after, given := contentLines(wants)
	if known && given {
		return diffLines(before, after)
	}
	return []string{fmt.Sprintf("  - %s", has.inShort()), fmt.Sprintf("  + %s", wants.inShort())}
}

// contentLines are a content as lines; none where there is none, false where it is not known.
func contentLines(c *proxyContent) ([]string, bool) {
	if c == nil {
		return nil, true
	}
	var out bytes.Buffer
	if json.Indent(&out, c.Content, "", "  ") != nil {
		return nil, false
	}
	return strings.Split(out.String(), "\n"), true
}

// inShort is a content that cannot be shown.
func (c *proxyContent) inShort() string {
	switch {
	case c == nil:
		return "nothing"
	case c.LeftOutBytes > 0:
		return fmt.Sprintf("revision %d, hash %s, too large to be shown: %d bytes", c.Revision, c.Hash, c.LeftOutBytes)
	case len(c.Content) == 0:
		return fmt.Sprintf("revision %d, hash %s, from before it connected", c.Revision, c.Hash)
	}
	return fmt.Sprintf("revision %d, hash %s", c.Revision, c.Hash)
}

// diffLines are the lines that go, behind a -, and come, behind a +, with some around them.
func diffLines(before, after []string) []string {
	all := mergedLines(before, after)
	near := func(i int) bool {
		for j := max(0, i-diffContext); j < min(len(all), i+diffContext+1); j++ {
			if all[j][0] != ' ' {
				return true
			}
		}
		return false
	}
	var out []string
	skipped := false
	for i, line := range all {
		if !near(i) {
			skipped = true
			continue
		}
		if skipped && len(out) > 0 {
			out = append(out, "    ...")
		}
		skipped = false
		out = append(out, "  "+line)
	}
	return out
}

// mergedLines are the lines of both, each with a sign before it.
func mergedLines(before, after []string) []string {
	head := 0
	for head < min(len(before), len(after)) && before[head] == after[head] {
		head++
	}
	tail := 0
	for tail < min(len(before), len(after))-head && before[len(before)-1-tail] == after[len(after)-1-tail] {
		tail++
	}
	out := signed(nil, ' ', before[:head])
	out = append(out, changedLines(before[head:len(before)-tail], after[head:len(after)-tail])...)
	return signed(out, ' ', before[len(before)-tail:])
}

func signed(to []string, sign byte, lines []string) []string {
	for _, line := range lines {
		to = append(to, string(sign)+" "+line)
	}
	return to
}

// changedLines keep the longest common subsequence of both.
func changedLines(before, after []string) []string {
	if len(before)*len(after) > diffCellsMax {
		return signed(signed(nil, '-', before), '+', after)
	}
	common := make([][]int, len(before)+1) // of what comes behind a line of each
	for i := range common {
		common[i] = make([]int, len(after)+1)
	}
	for i := len(before) - 1; i >= 0; i-- {
		for j := len(after) - 1; j >= 0; j-- {
			if before[i] == after[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	var out []string
	i, j := 0, 0
	for i < len(before) && j < len(after) {
		switch {
		case before[i] == after[j]:
			out = append(out, "  "+before[i])
			i, j = i+1, j+1
		case common[i+1][j] >= common[i][j+1]:
			out = append(out, "- "+before[i])
			i++
		default:
			out = append(out, "+ "+after[j])
			j++
		}
	}
	return signed(signed(out, '-', before[i:]), '+', after[j:])
}

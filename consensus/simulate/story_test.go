package simulate

import (
	"fmt"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// story is what happened, for people. It is told in full when a seed is played
// again because it failed.
type story struct {
	told  bool
	lines []string
}

// storyLines is how much of the end of a story is printed.
const storyLines = 150

func (w *world) tell(format string, args ...any) {
	if w.story.told {
		w.story.lines = append(w.story.lines, fmt.Sprintf("%9.4fs  ", w.now.Seconds())+fmt.Sprintf(format, args...))
	}
}

// text is the last part of the story, and all of it that the words tell of.
func (s *story) text(words ...string) string {
	var out strings.Builder
	first := max(0, len(s.lines)-storyLines)
	for i, line := range s.lines {
		about := false
		for _, word := range words {
			about = about || word != "" && strings.Contains(line, word)
		}
		if i >= first || about {
			fmt.Fprintln(&out, line)
		}
	}
	return out.String()
}

func hash(b []byte) uint64 { return xxhash.Sum64(b) }

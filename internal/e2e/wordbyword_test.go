package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stellmap/stellmap/internal/process"
)

// A newcomer who does word by word what docs/federation.md says has two regions, and sees what
// the page shows. It is done in a network of its own, where nobody else has the page's addresses.
func TestTwoRegionsAreSetUpWordByWord(t *testing.T) {
	wordByWord(t, "../../docs/federation.md", "Setting up two regions")
}

// The same of docs/security.md: three members with authentication, TLS, revocation and an audit log.
func TestAClusterWithEverythingOnIsSetUpWordByWord(t *testing.T) {
	wordByWord(t, "../../docs/security.md", "Setting up a cluster with everything on")
}

func wordByWord(t *testing.T, page, chapter string) {
	t.Helper()
	inside, err := inOwnNetwork(t)
	need(t, "a network namespace, which takes root and iproute2,", err)
	if !inside {
		return
	}
	if err := execute("ip", "link", "set", "lo", "up"); err != nil {
		t.Fatal(err)
	}
	s := newShell(t)
	for _, block := range blocksOf(t, page, chapter) {
		if block.kind == "sh" {
			s.must(block.text)
			continue
		}
		for _, one := range spoken(block.text) {
			s.shows(one)
		}
	}
	s.must(`for pid in $(cat *.pid); do if kill -0 $pid 2>/dev/null; then echo "$pid is still there"; false; fi; done`)
}

// A block is one of the parts of a page that are not prose.
type block struct{ kind, text string }

// blocksOf are the blocks of one chapter of a page.
func blocksOf(t *testing.T, page, chapter string) (out []block) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\n## "+chapter+"\n")
	rest, _, _ = strings.Cut(rest, "\n## ")
	for n, part := range strings.Split(rest, "\n```") {
		if n%2 == 1 {
			kind, text, _ := strings.Cut(part, "\n")
			out = append(out, block{kind, text})
		}
	}
	if len(out) == 0 {
		t.Fatalf("%s has no chapter %q with something to do", page, chapter)
	}
	return out
}

// A saying is a command and what it prints.
type saying struct{ command, says string }

// spoken are the commands of a block, each after a "$ ".
func spoken(text string) (out []saying) {
	for _, part := range strings.Split("\n"+text, "\n$ ")[1:] {
		command, says, _ := strings.Cut(part, "\n")
		out = append(out, saying{command, says})
	}
	return out
}

// A shell is one bash, which keeps variables and what runs in the background from one command
// to the next.
type shell struct {
	t   *testing.T
	in  io.Writer
	out *bufio.Reader
}

func newShell(t *testing.T) *shell {
	t.Helper()
	cmd := exec.Command("bash")
	cmd.Dir = t.TempDir()
	absolute, err := filepath.Abs(bin)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(process.Environment(), "PATH="+absolute+":"+os.Getenv("PATH"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, both, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = both, both
	err = errors.Join(cmd.Start(), both.Close())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what it has started included; there may be none any more
		cmd.Wait()                                      // it was killed
		out.Close()
		if t.Failed() {
			logs, _ := filepath.Glob(filepath.Join(cmd.Dir, "*.log"))
			for _, log := range logs {
				said, err := os.ReadFile(log)
				t.Logf("%s: %v\n%s", filepath.Base(log), err, said)
			}
		}
	})
	return &shell{t, in, bufio.NewReader(out)}
}

// run does something, and says what it printed.
func (s *shell) run(command string) (said string, ok bool) {
	s.t.Helper()
	const end = "that was all: "
	if _, err := fmt.Fprintf(s.in, "%s\necho \"%s$?\"\n", command, end); err != nil {
		s.t.Fatalf("the shell has ended before %s: %v", command, err)
	}
	for {
		line, err := s.out.ReadString('\n')
		if err != nil {
			s.t.Fatalf("the shell has ended in %s: %v\n%s", command, err, said)
		}
		if code, is := strings.CutPrefix(line, end); is {
			return said, code == "0\n"
		}
		said += line
	}
}

// must does all of a block, and ends the test where a part of it fails.
func (s *shell) must(block string) {
	s.t.Helper()
	said, _ := s.run("set -e\n" + block + "\nset +e")
	s.t.Logf("%s\n%s", block, said)
}

// shows does what a page says and compares what comes of it. What only looks is done again
// until it is as the page says, which speaks of seconds.
func (s *shell) shows(one saying) {
	s.t.Helper()
	try := func() error {
		said, ok := s.run(one.command)
		if got, want := withoutWhatVaries(said), withoutWhatVaries(one.says); ok == fails.MatchString(one.says) || got != want {
			return fmt.Errorf("$ %s\nsays\n%s\nand the page says\n%s\ncompared as\n%s\n%s", one.command, said, one.says, got, want)
		}
		return nil
	}
	if strings.Contains(one.command, " federation status") || strings.Contains(one.command, " get ") {
		_, err := process.Within(s.t.Context(), readyTime, "what the page shows", try)
		if err != nil {
			s.t.Fatal(err)
		}
		return
	}
	if err := try(); err != nil {
		s.t.Fatal(err)
	}
}

var (
	cells      = regexp.MustCompile(` {2,}`)
	numberedAs = regexp.MustCompile(`\b(rev|revision) \d+|\b(token) \w+|\b(mark) \S+|\b(lines \d+ to) \d+|\b\d+( denied)|\b\d+-\d+-\d+T\S+Z`)
	fails      = regexp.MustCompile(`   exit [1-9]\n?$`)          // as stellmapctl ends what it says of it
	varies     = []string{"AGE", "REVISION", "RENEWED", "SOURCE"} // columns
)

// withoutWhatVaries is an output without times, revisions, what was drawn, which member is
// followed, and how wide all that is.
func withoutWhatVaries(text string) string {
	var out []string
	var heads []string
	for line := range strings.Lines(text) {
		row := cells.Split(strings.TrimSpace(numberedAs.ReplaceAllString(line, "$1$2$3$4$5 …")), -1)
		if slices.Contains(row, "AGE") || slices.Contains(row, "RENEWED") {
			heads = row
		} else if len(row) == len(heads) {
			for n, head := range heads {
				if slices.Contains(varies, head) {
					row[n] = "…"
				}
			}
		}
		out = append(out, strings.Join(row, " | "))
	}
	return strings.Join(out, "\n")
}

// What varies is taken out of an output, and nothing else.
func TestWhatVariesIsLeftOut(t *testing.T) {
	const said = "REGION  STATE      AGE     REVISION\nb       connected  12m34s  71\nb: 10.2.0.1:19090 cannot be reached\nrevision 12\n"
	const want = "REGION | STATE | AGE | REVISION\nb | connected | … | …\nb: 10.2.0.1:19090 cannot be reached\nrevision …"
	if got := withoutWhatVaries(said); got != want {
		t.Errorf("%s\nbecomes\n%s\nwant\n%s", said, got, want)
	}
	if got := withoutWhatVaries("registered a   rev 8   lease 3600 s   lease token AB2\n"); got != "registered a | rev … | lease 3600 s | lease token …" {
		t.Errorf("it becomes %s", got)
	}
}

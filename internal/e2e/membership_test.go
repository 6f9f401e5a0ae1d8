package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stellmap/stellmap/internal/process"
)

// Bounds of the page's test.
const (
	pageTime     = 3 * time.Minute
	pageMembers  = 6 // ids that the page has
	pageWriters  = 8
	pageWriteMax = 3 * time.Second        // of one write, tries included
	pageTryTime  = 400 * time.Millisecond // of one try
	pageRest     = 5 * time.Millisecond
)

// The commands of docs/membership.md, word by word and in their order, do what the page says: one member
// grows to three and five, a dead one is replaced, five shrink to three, each is restarted. Under a load of
// writes, of which each is acknowledged within 3 s, tries included, and none is lost; and under the eyes of
// watchers at all of them, which miss nothing.
func TestMembersComeAndGoAsThePageSays(t *testing.T) {
	p := newPage(t)
	p.play()
	p.compare()
	p.check()
}

// inTheMidst comes after the page's first block: the leader is killed while a voter is replaced, whoever of the
// three it is, and comes back.
const inTheMidst = `
$ for i in 2 3; do member $i --join 127.0.0.1:18081; stellmapctl member promote $i --wait 1m; done
$ three() { STELLMAP_TOKEN=$(cat n3/admin.token) stellmapctl --server http://127.0.0.1:8083 "$@"; }
$ member 4 --join 127.0.0.1:18082
$ (until three member replace --node-id 2 --new-node-id 4; do sleep 0.1; done) >replaced.log 2>&1 & replacing=$!
$ until three member list 2>/dev/null | grep -E -q 'takes the place|^4 .* (leader|follower) '; do sleep 0.02; done
$ L=$(three leader show -o name); kill -9 $(cat n$L.pid); echo killed $L
$ O=$((L == 1 ? 3 : 1)); until N=$(stellmapctl --server http://127.0.0.1:808$O leader show -o name 2>/dev/null) && [ $N != $L ]; do sleep 0.02; done
$ if [ $L != 2 ]; then member $L; fi
$ wait $replacing; cat replaced.log
node 4 has taken the place of node 2   voters 1,3,4   leader 1   rev 202
$ ready 1; ready 3; ready 4
`

// A leader is killed in the midst of a change of the members. The change comes to its end, no write waits for
// longer than for an election, none is lost, and no watcher misses anything.
func TestALeaderIsKilledInTheMidstOfAChange(t *testing.T) {
	p := newPage(t)
	first := slices.IndexFunc(p.commands, func(c pageCommand) bool { return strings.HasPrefix(c.text, "member 2 ") })
	p.commands = p.commands[:first]
	p.parse(inTheMidst)
	p.play()
	p.compare()
	p.check()
}

func newPage(t *testing.T) *page {
	p := &page{t: t, host: loopbackOfItsOwn(), client: newClient(t)}
	p.read(filepath.Join(root, "docs/membership.md"))
	return p
}

// play runs the commands under a load, while watchers watch.
func (p *page) play() {
	t := p.t
	t.Helper()
	p.start()
	p.until("@1 ", "the first command") // functions are made by now
	if _, err := process.Within(t.Context(), readyTime, "the first member", func() error { return p.isReady(1) }); err != nil {
		t.Fatalf("%v\n%s", err, p.shell.Tail(20))
	}
	writing, stopWriting := context.WithCancel(t.Context())
	watching, stopWatching := context.WithCancel(t.Context())
	var writers, watchers sync.WaitGroup
	defer watchers.Wait()
	defer writers.Wait()
	defer stopWatching()
	defer stopWriting()
	var ports []string
	for id := range pageMembers {
		ports = append(ports, fmt.Sprintf("%s:1800%d", p.host, id+1))
	}
	p.put(writing, beatService, "stays", stays, "stays") // from now on it is there
	watched := startWatchers(watching, t, &watchers, ports)
	writers.Go(func() { p.beat(writing, watched) })
	for w := range pageWriters {
		writers.Go(func() { p.write(writing, w) })
	}
	p.until("@end", "the page's last command")
	stopWriting()
	writers.Wait()
	if _, err := process.Within(t.Context(), readyTime, "all watchers to know the last change", watched.behind); err != nil {
		t.Error(err)
	}
	stopWatching()
	watchers.Wait()
	watched.report()
}

// page is a document whose console blocks are run in one shell.
type page struct {
	t        *testing.T
	host     string // in place of 127.0.0.1, so that the ports can be the page's
	client   *http.Client
	commands []pageCommand
	shell    *process.Process

	mu      sync.Mutex // guards what follows
	acked   map[string]string
	writes  int
	slowest time.Duration
}

// pageCommand is a line that begins with a dollar, and what the page shows that it prints.
type pageCommand struct {
	text  string
	shows []string
}

// loopbackOfItsOwn is one of the 16 million addresses of this machine.
func loopbackOfItsOwn() string {
	return fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(250), rand.IntN(250), 2+rand.IntN(250))
}

var consoleBlocks = regexp.MustCompile("(?ms)^```console\n(.*?)^```")

func (p *page) read(path string) {
	p.t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, block := range consoleBlocks.FindAllStringSubmatch(string(text), -1) {
		p.parse(block[1])
	}
	if len(p.commands) < 10 {
		p.t.Fatalf("%s has %d commands", path, len(p.commands))
	}
}

// parse takes commands, and what they print, from a console block.
func (p *page) parse(block string) {
	for line := range strings.Lines(strings.TrimPrefix(block, "\n")) {
		line = strings.TrimSuffix(line, "\n")
		if command, ok := strings.CutPrefix(line, "$ "); ok {
			p.commands = append(p.commands, pageCommand{text: strings.ReplaceAll(command, "127.0.0.1", p.host)})
		} else {
			last := &p.commands[len(p.commands)-1]
			last.shows = append(last.shows, line)
		}
	}
}

// start runs them all. The shell stays at the end, or where one fails, so that what it started ends with it.
func (p *page) start() {
	p.t.Helper()
	var script strings.Builder
	script.WriteString("set -eu -o pipefail\ntrap 'echo \"@failed $?\"; sleep 3600' EXIT\n")
	for i, c := range p.commands {
		fmt.Fprintf(&script, "echo '@%d '\n%s\n", i, c.text)
	}
	script.WriteString("trap - EXIT\necho @end\nexec sleep 3600\n")
	dir := p.t.TempDir()
	path, err := filepath.Abs(bin)
	if err != nil {
		p.t.Fatal(err)
	}
	p.shell, err = process.Start(process.Options{
		Name: "page", Path: "/bin/bash", Args: []string{"-c", script.String()}, Dir: dir, Logs: dir,
		Env: []string{"PATH=" + path + ":" + os.Getenv("PATH")},
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		if err := p.shell.Kill(); err != nil {
			p.t.Error(err)
		}
		if p.t.Failed() {
			p.t.Logf("the page's shell:\n%s", p.shell.Tail(40))
			p.lastWords(dir)
		}
	})
}

func (p *page) lastWords(dir string) {
	logs, err := filepath.Glob(filepath.Join(dir, "n*.log"))
	if err != nil {
		p.t.Error(err)
	}
	for _, path := range logs {
		text, err := os.ReadFile(path)
		if err != nil {
			p.t.Error(err)
		}
		p.t.Logf("last words of %s:\n%s", filepath.Base(path), text[max(0, len(text)-1500):])
	}
}

// until waits for a mark in what the shell prints.
func (p *page) until(mark, what string) {
	p.t.Helper()
	if _, err := process.Within(p.t.Context(), pageTime, what, func() error {
		switch said := p.shell.Output(); {
		case strings.Contains(said, mark):
			return nil
		case strings.Contains(said, "@failed"), !p.shell.Running():
			p.t.Fatalf("a command of the page fails:\n%s", p.shell.Tail(20))
		}
		return errors.New("not yet")
	}); err != nil {
		p.t.Fatalf("%v\n%s", err, p.shell.Tail(20))
	}
}

// anyURL is that of a member, be it there or not.
func (p *page) anyURL() string { return p.url(1 + rand.IntN(pageMembers)) }

func (p *page) url(member int) string { return fmt.Sprintf("http://%s:808%d", p.host, member) }

func (p *page) isReady(member int) error {
	a, err := (&cluster{t: p.t, client: p.client}).call(p.t.Context(), http.MethodGet, p.url(member)+"/readyz", "")
	if err != nil {
		return err
	}
	return a.want(http.StatusOK)
}

// write is a client that writes as fast as it is answered. It asks any member of the six, and another one
// when it gets no answer, or one that says to try again.
func (p *page) write(ctx context.Context, writer int) {
	for n := 0; ctx.Err() == nil; n++ {
		id, value := fmt.Sprintf("w%d-%d", writer, n%20), fmt.Sprintf("%d/%d", writer, n)
		began := time.Now()
		if !p.put(ctx, writtenService, id, writtenPortFirst, value) {
			return
		}
		p.note(id, value, time.Since(began))
		rest(ctx, pageRest)
	}
}

// put writes an instance until that is acknowledged; false when it takes too long. It is one request, however often
// it is tried: no try comes late and over what was written after it.
func (p *page) put(ctx context.Context, service, id string, port int, value string) bool {
	c, began, last := &cluster{t: p.t, client: p.client}, time.Now(), ""
	for time.Since(began) <= pageWriteMax {
		within, cancel := context.WithTimeout(context.WithoutCancel(ctx), pageTryTime)
		a, err := c.call(within, http.MethodPut, fmt.Sprintf("%s/api/v2/namespaces/default/services/%s/instances/%s", p.anyURL(), service, id),
			registration(port, value), "Idempotency-Key", value)
		cancel()
		if err == nil && a.status/100 == 2 {
			return true
		}
		last = fmt.Sprintf("%d %.200s %v", a.status, a.body, err)
		rest(ctx, writerRest)
	}
	p.t.Errorf("%s was not acknowledged within %v; the last answer was %s", value, pageWriteMax, last)
	return false
}

func (p *page) note(id, value string, took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.acked == nil {
		p.acked = make(map[string]string)
	}
	p.acked[id] = value
	p.writes++
	p.slowest = max(p.slowest, took)
}

// chance is what another run prints otherwise.
var chance = regexp.MustCompile(`(rev|leader) \d+`)

// compare holds what the commands printed against what the page shows.
func (p *page) compare() {
	p.t.Helper()
	said := p.shell.Output()
	for i, c := range p.commands {
		_, after, _ := strings.Cut(said, fmt.Sprintf("@%d \n", i))
		printed, _, _ := strings.Cut(after, "\n@")
		lines := strings.Split(chance.ReplaceAllString(printed, "$1 N"), "\n")
		for _, want := range c.shows {
			if !slices.Contains(lines, chance.ReplaceAllString(want, "$1 N")) {
				p.t.Errorf("%s\nprints\n%s\nand the page shows\n%s", c.text, printed, want)
			}
		}
	}
}

// check reads all that was acknowledged, and who the members are.
func (p *page) check() {
	p.t.Helper()
	c := &cluster{t: p.t, client: p.client}
	for id, value := range p.acked {
		a := c.must(http.MethodGet, p.url(1)+"/api/v2/namespaces/default/services/written/instances/"+id, "", http.StatusOK)
		if got, err := valueOf(a); err != nil || got != value {
			p.t.Errorf("%s is %q, acknowledged was %q; %v", id, got, value, err)
		}
	}
	code, out, errs := ctl(p.t, p.url(3), "member", "list", "-o", "name")
	if code != 0 || out != "1\n3\n4\n" {
		p.t.Errorf("the members at the end: %q, exit code %d %s", out, code, errs)
	}
	p.t.Logf("%d writes, the slowest took %v", p.writes, p.slowest.Round(time.Millisecond))
	if p.writes < 100 {
		p.t.Errorf("%d writes are no load", p.writes)
	}
}

package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stellmap/stellmap/internal/freeport"
)

// launchAt is launch with ports of the test's choice: a member that comes back
// must be where it was.
func launchAt(t *testing.T, id int, dir string, ports []string, more ...string) *process {
	t.Helper()
	args := []string{"--node-id", fmt.Sprint(id), "--data-dir", dir, "--storage-ballast", "0",
		"--http-addr", ports[0], "--xds-addr", ports[1], "--grpc-addr", ports[2], "--admin-addr", ports[3]}
	return launch(t, append(args, more...)...)
}

// fourPorts are a member's.
func fourPorts(t *testing.T) []string { return freePorts(t, 4) }

func freePorts(t *testing.T, n int) []string {
	t.Helper()
	ports, err := freeport.Addresses(n)
	if err != nil {
		t.Fatal(err)
	}
	return ports
}

func (p *process) ready() {
	p.t.Helper()
	p.until("it to be ready", func() bool { status, _ := p.get("HTTP", "/readyz"); return status == http.StatusOK })
}

// A node that starts with --join learns all that it needs from the cluster, is
// a learner that serves, and comes back without --join. One that is configured
// for another cluster, or has an id that is used, is told so and ends.
func TestANodeJoins(t *testing.T) {
	ports, first := fourPorts(t), t.TempDir()
	one := launchAt(t, 1, first, ports)
	one.ready()
	admin := one.address("admin")[len("http://"):]

	for name, s := range map[string]struct {
		args []string
		want string
	}{
		"another cluster":    {[]string{"--cluster-id", "7"}, "set node.cluster_id"},
		"another region":     {[]string{"--region", "elsewhere"}, "set node.region"},
		"an id that is used": {[]string{"--node-id", "1"}, "node id 1 is that of a member with another data directory"},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"--node-id", "9", "--data-dir", t.TempDir(), "--storage-ballast", "0", "--join", admin}, anyPorts...)
			if said := launch(t, append(args, s.args...)...).fails(exitFailed); !strings.Contains(said, s.want) {
				t.Errorf("it says\n%s\nwant %q", said, s.want)
			}
		})
	}

	dir, its := t.TempDir(), fourPorts(t)
	two := launchAt(t, 2, dir, its, "--join", "127.0.0.1:1,"+admin) // of two members one is down
	two.ready()
	if _, body := two.get("HTTP", "/api/v2/members"); !strings.Contains(body, `{"id":2,"role":"learner","voter":false,"learner":true,`) {
		t.Errorf("the members are %s", body)
	}
	two.end(exitOK)
	again := launchAt(t, 2, dir, its)
	again.ready()
	if _, body := again.get("HTTP", "/api/v2/members"); !strings.Contains(body, `"leaderId":1`) || !strings.Contains(body, `{"id":1,"role":"leader"`) {
		t.Errorf("after a restart without --join the members are %s", body)
	}
}

// A member that was removed while the others have no quorum stays for its vote, and
// nobody else: it is told nothing new, so clients have to go to other members.
func TestAMemberThatStaysForItsVoteServesNobody(t *testing.T) {
	ports := slices.Collect(slices.Chunk(freePorts(t, 12), 4))
	var members strings.Builder
	for i, p := range ports {
		fmt.Fprintf(&members, "[[cluster.members]]\nid = %d\nhttp = %q\nxds = %q\ngrpc = %q\nadmin = %q\n", i+1, p[0], p[1], p[2], p[3])
	}
	file := filepath.Join(t.TempDir(), "members.toml")
	if err := os.WriteFile(file, []byte(members.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	dirs := []string{t.TempDir(), t.TempDir(), t.TempDir()}
	start := func(i int) *process { return launchAt(t, i+1, dirs[i], ports[i], "--config", file) }
	one, two, three := start(0), start(1), start(2)
	for _, p := range []*process{one, two, three} {
		p.ready()
	}
	two.end(exitOK)
	one.ready()

	answered := make(chan struct{})
	go func() { // it is answered when the second is back, or given up before
		defer close(answered)
		one.post(dirs[0], "/admin/v1/members/remove", `{"nodeId":3,"force":true}`)
	}()
	three.until("it to know that it was removed", func() bool { return strings.Contains(three.said(), "it stays for its vote") })
	for _, address := range ports[2][:2] {
		three.until(address+" to be closed", func() bool {
			c, err := net.Dial("tcp", address)
			if err == nil {
				c.Close()
			}
			return err != nil
		})
	}
	if len(three.ended) > 0 {
		t.Fatalf("it has ended, and its vote is needed:\n%s", three.said())
	}
	two = start(1)
	two.ready()
	if said := three.fails(exitFailed); !strings.Contains(said, "was removed from cluster") {
		t.Errorf("it ends and says\n%s", said)
	}
	<-answered
}

// post asks for something on the admin port, and leaves the answer alone.
func (p *process) post(dir, path, body string) {
	token, err := os.ReadFile(filepath.Join(dir, "admin.token"))
	if err != nil {
		p.t.Error(err)
	}
	q, err := http.NewRequest(http.MethodPost, p.address("admin")+path, strings.NewReader(body))
	if err != nil {
		p.t.Error(err)
		return
	}
	q.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	q.Header.Set("Content-Type", "application/json")
	response, err := p.client.Do(q)
	if err != nil {
		p.t.Error(err)
		return
	}
	response.Body.Close()
}

// Whoever asks in vain says whom, and why.
func TestNobodyTakesANodeIn(t *testing.T) {
	answers := func(status int, body string) error {
		_, err := joiningOf(status, []byte(body))
		return err
	}
	for name, s := range map[string]struct {
		status int
		body   string
		final  bool
		want   string
	}{
		"refused":    {409, `{"code":"member_removed","message":"take another id"}`, true, "take another id"},
		"no leader":  {503, `{"code":"not_leader","message":"no leader"}`, false, "it answers 503"},
		"busy":       {429, `{"code":"busy","message":"later"}`, false, "it answers 429"},
		"not a path": {404, "not here", false, "it answers 404"},
		"half":       {200, `{"code":"ok","data":{"clu`, false, "decode the answer"},
	} {
		t.Run(name, func(t *testing.T) {
			err := answers(s.status, s.body)
			if _, final := err.(*joinRefusal); final != s.final || !strings.Contains(fmt.Sprint(err), s.want) {
				t.Errorf("%v (final: %v), want %q (%v)", err, final, s.want, s.final)
			}
		})
	}
	if joinTimeout <= 4*time.Second {
		t.Error("the server's own limit of a request must come first, so that its answer is the one that is told")
	}
}

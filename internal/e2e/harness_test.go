package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stellmap/stellmap/internal/freeport"
	"github.com/stellmap/stellmap/internal/process"
)

// root is the top folder, seen from this package's.
const root = "../.."

const (
	readyTime  = 20 * time.Second // for members to find a leader and catch up
	stopTime   = 10 * time.Second // for a member to end when asked
	callTime   = 3 * time.Second  // for one HTTP call
	startTries = 3                // with new ports, when somebody was quicker
)

// bin is the folder of the binaries, built once. A test that starts itself once
// more, in a network of its own, names it.
var bin string

const binVariable = "E2E_BIN"

// scratch is this process's own folder.
var scratch string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if plan := os.Getenv(attackVariable); plan != "" {
		if err := attackAsTold(plan); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}
	var err error
	if scratch, err = os.MkdirTemp("", "stellmap-e2e-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(scratch)
	if bin = os.Getenv(binVariable); bin != "" {
		return m.Run()
	}
	bin = scratch
	if err := errors.Join(build(bin+"/", "./cmd/..."), build(filepath.Join(bin, "demo"), "./examples/envoy")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func build(to, what string, flags ...string) error {
	args := append(append([]string{"build", "-trimpath"}, flags...), "-o", to, what)
	cmd := exec.Command("go", args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// buildBugs builds, once, a stellmapd in which STELLMAP_MUTANT plants a bug. Its path
// follows assignments in the arguments of env, and so has no '='.
var buildBugs = sync.OnceValues(func() (string, error) {
	binary := filepath.Join(scratch, "bugs", "stellmapd")
	return binary, build(binary, "./cmd/stellmapd", "-tags", "mutants")
})

func buildWithBugs(t *testing.T) string {
	t.Helper()
	binary, err := buildBugs()
	if err != nil {
		t.Fatal(err)
	}
	return binary
}

// need skips a test that lacks something, or fails it where everything must be there.
func need(t *testing.T, what string, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is needed: %v", what, err)
	}
	t.Skipf("not tested, %s is missing (`make setup` gets it): %v", what, err)
}

// envoyPath is an Envoy 1.40: ENVOY_BIN, or what scripts/envoy has fetched.
func envoyPath(t *testing.T) string {
	t.Helper()
	path := os.Getenv("ENVOY_BIN")
	if path == "" {
		path = filepath.Join(root, ".cache/envoy/1.40.0/envoy")
	}
	_, err := os.Stat(path)
	need(t, "Envoy", err)
	absolute, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return absolute
}

// seed is this run's, and is printed when the test fails.
func seed(t *testing.T) *rand.Rand {
	t.Helper()
	n := uint64(time.Now().UnixNano())
	if given := os.Getenv("SEED"); given != "" {
		var err error
		if n, err = strconv.ParseUint(given, 10, 64); err != nil {
			t.Fatalf("SEED: %v", err)
		}
	}
	t.Logf("SEED=%d", n)
	return rand.New(rand.NewPCG(n, 0))
}

// member is one stellmapd, its files and its addresses.
type member struct {
	id       int
	host     string // its address
	dir      string // of config, data and log
	config   string
	ports    [4]int       // HTTP, xDS, peers, admin
	trust    *tls.Config  // what the cluster's client needs to speak with it; nil = it has no TLS
	operator *http.Client // who is shown all of it; nil = whoever asks is
	command  []string     // what runs it; its configuration comes last
	proc     *process.Process
}

func (m *member) name() string    { return fmt.Sprintf("n%d", m.id) }
func (m *member) url() string     { return m.urlOf(0) }
func (m *member) dataDir() string { return filepath.Join(m.dir, "data") }

// urlOf is that of one of its HTTP ports, by the index of the port.
func (m *member) urlOf(i int) string {
	if m.trust != nil {
		return "https://" + m.address(i)
	}
	return "http://" + m.address(i)
}

// address is that of one of its listeners, by the index of its port.
func (m *member) address(i int) string { return fmt.Sprintf("%s:%d", m.host, m.ports[i]) }

// cluster is a region of one or more members.
type cluster struct {
	t       *testing.T
	members []*member
	client  *http.Client
	lan     *lan            // what connects them; nil = all are on 127.0.0.1
	place   func(i int) int // in which of its nodes they are; nil = in one each
}

// newCluster starts members and waits until each is ready.
func newCluster(t *testing.T, size int) *cluster {
	t.Helper()
	return newClusterWith(t, size, nil)
}

// newClusterWith is newCluster with something done to each member before it starts.
func newClusterWith(t *testing.T, size int, prepare func(*member)) *cluster {
	t.Helper()
	return newClusterIn(t, nil, size, prepare)
}

// newClusterIn is newClusterWith in a network.
func newClusterIn(t *testing.T, lan *lan, size int, prepare func(*member)) *cluster {
	t.Helper()
	for try := 1; ; try++ {
		c := &cluster{t: t, client: newClient(t), lan: lan}
		c.lay(size)
		for _, m := range c.members {
			if prepare != nil {
				prepare(m)
			}
			c.start(m)
		}
		err := c.ready()
		if err == nil {
			return c
		}
		if try == startTries || !c.clashed() {
			t.Fatal(err)
		}
		t.Logf("somebody took a port, again with others: %v", err)
		c.kill(c.members...)
	}
}

func newClient(t *testing.T) *http.Client {
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Timeout: callTime, Transport: transport}
}

// lay chooses ports and writes the configuration files.
func (c *cluster) lay(size int) {
	c.t.Helper()
	ports, err := freeport.Find(4 * size)
	if err != nil {
		c.t.Fatal(err)
	}
	top := c.t.TempDir()
	for i := range size {
		m := &member{id: i + 1, host: "127.0.0.1", dir: filepath.Join(top, fmt.Sprintf("n%d", i+1)), ports: [4]int(ports[4*i:])}
		m.config = filepath.Join(m.dir, "stellmapd.toml")
		m.command = []string{filepath.Join(bin, "stellmapd")}
		if c.lan != nil {
			node := i
			if c.place != nil {
				node = c.place(i)
			}
			m.host, m.command = lanHost(node), c.lan.inside(node, m.command...)
		}
		c.members = append(c.members, m)
	}
	for _, m := range c.members {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			c.t.Fatal(err)
		}
		if err := os.WriteFile(m.config, []byte(c.configOf(m)), 0o644); err != nil {
			c.t.Fatal(err)
		}
	}
}

func (c *cluster) configOf(m *member) string {
	var b strings.Builder
	fmt.Fprintf(&b, "[node]\nid = %d\ncluster_id = 100\nregion = \"local\"\ndata_dir = %q\n", m.id, m.dataDir())
	fmt.Fprintf(&b, "[server]\nhttp_addr = %q\nxds_addr = %q\ngrpc_addr = %q\nadmin_addr = %q\n", m.address(0), m.address(1), m.address(2), m.address(3))
	if len(c.members) == 1 {
		return b.String()
	}
	for _, o := range c.members {
		fmt.Fprintf(&b, "[[cluster.members]]\nid = %d\nhttp = %q\nxds = %q\ngrpc = %q\nadmin = %q\n",
			o.id, o.address(0), o.address(1), o.address(2), o.address(3))
	}
	return b.String()
}

// start starts a member; the test's end kills it.
func (c *cluster) start(m *member) {
	c.t.Helper()
	if m.trust != nil {
		c.client.Transport.(*http.Transport).TLSClientConfig = m.trust
	}
	args := append(slices.Clone(m.command[1:]), "--config", m.config)
	p, err := process.Start(process.Options{Name: m.name(), Path: m.command[0], Args: args, Dir: m.dir, Logs: m.dir})
	if err != nil {
		c.t.Fatal(err)
	}
	m.proc = p
	c.t.Cleanup(func() {
		if err := p.Kill(); err != nil {
			c.t.Error(err)
		}
		if c.t.Failed() && m.proc == p {
			c.t.Logf("last words of %s:\n%s", m.name(), p.Tail(15))
		}
	})
}

// ready waits until every member says that it is.
func (c *cluster) ready() error {
	for _, m := range c.members {
		if _, err := process.Within(c.t.Context(), readyTime, m.name()+" to be ready", func() error { return c.isReady(m) }); err != nil {
			return fmt.Errorf("%w\n%s", err, m.proc.Tail(5))
		}
	}
	return nil
}

func (c *cluster) mustBeReady() {
	c.t.Helper()
	if err := c.ready(); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) isReady(m *member) error {
	a, err := c.call(c.t.Context(), http.MethodGet, m.url()+"/readyz", "")
	if err != nil {
		return err
	}
	return a.want(http.StatusOK)
}

func (c *cluster) clashed() bool {
	for _, m := range c.members {
		if m.proc.Clashed() {
			return true
		}
	}
	return false
}

// kill ends members with SIGKILL, as close to each other as can be.
func (c *cluster) kill(members ...*member) {
	c.t.Helper()
	for _, m := range members {
		if err := m.proc.Signal(9); err != nil {
			c.t.Fatal(err)
		}
	}
	for _, m := range members {
		<-m.proc.Ended()
	}
}

// leader is the member that all the given ones take for it.
func (c *cluster) leader(of ...*member) *member {
	c.t.Helper()
	found, err := c.findLeader(of...)
	if err != nil {
		c.t.Fatal(err)
	}
	return found
}

// findLeader waits until the given members agree on one.
func (c *cluster) findLeader(of ...*member) (found *member, err error) {
	_, err = process.Within(c.t.Context(), readyTime, "a leader", func() error {
		found = nil
		for _, m := range of {
			id, err := c.leaderOf(m)
			if err != nil {
				return err
			}
			if found != nil && found.id != id {
				return errors.New("they disagree")
			}
			found = c.members[id-1]
		}
		return nil
	})
	return found, err
}

func (c *cluster) leaderOf(m *member) (int, error) {
	a, err := c.call(c.t.Context(), http.MethodGet, m.url()+"/readyz", "")
	if err != nil {
		return 0, err
	}
	var body struct {
		Data struct {
			LeaderID int `json:"leaderId"`
		} `json:"data"`
	}
	if err := json.Unmarshal(a.body, &body); err != nil {
		return 0, err
	}
	if body.Data.LeaderID == 0 {
		return 0, fmt.Errorf("%s knows no leader", m.name())
	}
	return body.Data.LeaderID, nil
}

// answer is what an HTTP call brought.
type answer struct {
	status   int
	body     []byte
	revision uint64
}

// want is an error when the status is none of the given.
func (a answer) want(statuses ...int) error {
	for _, s := range statuses {
		if a.status == s {
			return nil
		}
	}
	return fmt.Errorf("answered %d: %.300s", a.status, a.body)
}

// leaseToken is what all instances are registered with: any caller may go on with
// what another has begun, as the parts of one workload may.
const leaseToken = "the-lease-token-of-all-tests"

// call sends a request, with a JSON body where there is one, and headers as
// pairs of name and value.
func (c *cluster) call(ctx context.Context, method, url, body string, headers ...string) (answer, error) {
	request, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	request.Header.Set("X-StellMap-Lease-Token", leaseToken)
	for pair := range slices.Chunk(headers, 2) {
		request.Header.Set(pair[0], pair[1])
	}
	response, err := c.client.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	a := answer{status: response.StatusCode}
	if a.body, err = io.ReadAll(response.Body); err != nil {
		return answer{}, err
	}
	if r := response.Header.Get("X-StellMap-Revision"); r != "" {
		if a.revision, err = strconv.ParseUint(r, 10, 64); err != nil {
			return answer{}, fmt.Errorf("X-StellMap-Revision: %w", err)
		}
	}
	return a, nil
}

// page is what an operator is shown of a member.
func (c *cluster) page(m *member, path string) (answer, error) {
	if m.operator == nil {
		return c.call(c.t.Context(), http.MethodGet, m.url()+path, "")
	}
	return (&cluster{client: m.operator}).call(c.t.Context(), http.MethodGet, m.url()+path, "")
}

// must is a call that has to be answered with one of the statuses.
func (c *cluster) must(method, url, body string, statuses ...int) answer {
	c.t.Helper()
	a, err := c.call(c.t.Context(), method, url, body)
	if err == nil {
		err = a.want(statuses...)
	}
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, url, err)
	}
	return a
}

// instanceURL is where v2 has an instance of a service in the namespace default.
func instanceURL(m *member, service, id string) string {
	return fmt.Sprintf("%s/api/v2/namespaces/default/services/%s/instances/%s", m.url(), service, id)
}

// registration is the body of a v2 register with a lease that outlives the test.
func registration(port int, value string) string {
	return fmt.Sprintf(`{"endpoints":[{"name":"http","protocol":"http","host":"127.0.0.1","port":%d}],"leaseTtlSeconds":3600,"metadata":{"value":%q}}`, port, value)
}

// valueOf is the metadata value of an instance that was read.
func valueOf(a answer) (string, error) {
	var instance struct {
		Metadata map[string]string `json:"metadata"`
	}
	if err := json.Unmarshal(a.body, &instance); err != nil {
		return "", err
	}
	return instance.Metadata["value"], nil
}

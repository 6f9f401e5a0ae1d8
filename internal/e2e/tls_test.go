package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/stellmap/stellmap/internal/freeport"
	"github.com/stellmap/stellmap/internal/process"
)

// authority is a development authority as stellmapctl makes it, and what it has issued.
type authority struct {
	t        *testing.T
	dir      string
	region   string       // of the members that it issues for
	operator *http.Client // of members that ask everybody who he is; nil = they do as they do by themselves, which on loopback is not to ask
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	a := authority{t: t, dir: filepath.Join(t.TempDir(), "tls"), region: "local"}
	a.cert("ca")
	return a
}

func (a authority) file(name string) string { return filepath.Join(a.dir, name) }

// cert runs stellmapctl cert.
func (a authority) cert(command string, args ...string) {
	a.t.Helper()
	cmd := exec.Command(filepath.Join(bin, "stellmapctl"), append([]string{"cert", command, "--dir", a.dir}, args...)...)
	cmd.Env = process.Environment()
	if out, err := cmd.CombinedOutput(); err != nil {
		a.t.Fatalf("stellmapctl cert %s %v: %v\n%s", command, args, err, out)
	}
}

// client is a certificate for somebody who takes no connections, and the settings to come with it.
func (a authority) client(name, path string) *tls.Config {
	a.t.Helper()
	a.cert("issue", "--name", name, "--uri", "spiffe://dev.example/"+path)
	c, err := trustIn(a.dir, name)
	if err != nil {
		a.t.Fatal(err)
	}
	return c
}

func (a authority) anonymous() *tls.Config {
	a.t.Helper()
	c, err := trustIn(a.dir, "")
	if err != nil {
		a.t.Fatal(err)
	}
	return c
}

// trustIn are the settings to come with by what is in an authority's folder: with whose certificate, or "" for without any.
func trustIn(dir, name string) (*tls.Config, error) {
	ca, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	c := &tls.Config{RootCAs: roots}
	if name == "" {
		return c, nil
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, name+".pem"), filepath.Join(dir, name+"-key.pem"))
	c.Certificates = []tls.Certificate{pair}
	return c, err
}

// in is the same authority for the members of another region.
func (a authority) in(region string) authority {
	a.region = region
	return a
}

// guarding is the same authority, for members that ask everybody who he is.
func (a authority) guarding() authority {
	a.t.Helper()
	a.operator = &http.Client{Timeout: callTime, Transport: &http.Transport{TLSClientConfig: a.client("watcher", "operator/watcher")}}
	a.t.Cleanup(a.operator.CloseIdleConnections)
	return a
}

// of is the name of a member's certificate: two regions have members that are called the same.
func (a authority) of(m *member) string { return a.region + "-" + m.name() }

// member is a certificate for a member, anew where it has one.
func (a authority) member(m *member) {
	a.t.Helper()
	a.cert("issue", "--name", a.of(m), "--uri", fmt.Sprintf("spiffe://dev.example/region/%s/peer/%d", a.region, m.id), "--host", m.host, "--overwrite")
}

// prepare has a member speak TLS on all ports. The revocation list is each member's own file, empty at first.
func (a authority) prepare(trust *tls.Config) func(*member) {
	return func(m *member) {
		a.t.Helper()
		a.member(m)
		m.trust = trust
		config, err := os.ReadFile(m.config)
		if err == nil {
			config = fmt.Appendf(config, "[tls]\ncert_file = %q\nkey_file = %q\nca_file = %q\ncrl_file = %q\n",
				a.file(a.of(m)+".pem"), a.file(a.of(m)+"-key.pem"), a.file("ca.pem"), m.crl())
			if m.operator = a.operator; m.operator != nil {
				config = append(config, "[auth]\nmode = \"on\"\n"...)
			}
			err = errors.Join(os.WriteFile(m.config, config, 0o644), os.WriteFile(m.crl(), nil, 0o644))
		}
		if err != nil {
			a.t.Fatal(err)
		}
	}
}

func (m *member) crl() string { return filepath.Join(m.dir, "crl.pem") }

// revoke puts certificates into the list and gives it to members.
func (a authority) revoke(to []*member, names ...string) {
	a.t.Helper()
	for _, name := range names {
		a.cert("revoke", a.file(name+".pem"))
	}
	list, err := os.ReadFile(a.file("crl.pem"))
	if err != nil {
		a.t.Fatal(err)
	}
	for _, m := range to {
		if err := os.WriteFile(m.crl(), list, 0o644); err != nil {
			a.t.Fatal(err)
		}
	}
}

// get asks once, over a connection of its own.
func get(t *testing.T, with *tls.Config, url string) error {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: with.Clone()}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Timeout: callTime, Transport: transport}).Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("answered %d", response.StatusCode)
	}
	return nil
}

// shake makes a TLS connection and waits a moment for the other side to end it: with TLS 1.3 a client learns so that it was refused.
func shake(t *testing.T, with *tls.Config, address string) error {
	t.Helper()
	with = with.Clone()
	with.NextProtos = []string{"h2", "http/1.1"}
	conn, err := tls.Dial("tcp", address, with)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(callTime)); err != nil {
		t.Fatal(err)
	}
	_, err = conn.Read(make([]byte, 1)) // of gRPC: its settings
	return err
}

// Three members speak TLS on every port, with nobody who has not proved who it is, and on each with those only who have business there.
func TestEveryPortAsksWhoComes(t *testing.T) {
	a := newAuthority(t).guarding()
	workload, operator := a.client("orders", "ns/default/sa/orders"), a.client("lin", "operator/lin")
	c := newClusterWith(t, 3, a.prepare(workload))
	c.must(http.MethodPut, instanceURL(c.members[0], "orders", "a"), registration(9000, "1"), http.StatusCreated)
	c.expect(c.members[1], "orders", "a", "1")

	strangers := newAuthority(t)
	stranger := strangers.client("orders", "ns/default/sa/orders")
	stranger.RootCAs = workload.RootCAs
	m := c.members[0]
	for _, one := range []struct {
		name string
		with *tls.Config
		want [4]bool // by port: HTTP, xDS, peers, admin
	}{
		{"anonymous", a.anonymous(), [4]bool{}},
		{"of another authority", stranger, [4]bool{}},
		{"a workload", workload, [4]bool{true, true, false, false}},
		{"an operator", operator, [4]bool{true, true, false, true}},
		{"a replicator", a.client("copy", "replicator/cn-sh"), [4]bool{false, false, true, false}},
	} {
		for port, want := range one.want {
			var err error
			if port == 0 || port == 3 {
				err = get(t, one.with, m.urlOf(port)+"/livez")
			} else {
				err = shake(t, one.with, m.address(port))
			}
			if (err == nil) != want {
				t.Errorf("%s at port %d: %v, let in should be %v", one.name, port, err, want)
			}
		}
	}
	if err := get(t, a.anonymous(), "http://"+m.address(0)+"/livez"); err == nil {
		t.Error("it answers without TLS, too")
	}
	env := []string{"--server", m.url(), "--ca", a.file("ca.pem"), "--cert", a.file("lin.pem"), "--key", a.file("lin-key.pem")}
	if code, out, errs := ctl(t, m.url(), append(env, "status")...); code != 0 || !strings.Contains(out, "leader") {
		t.Errorf("stellmapctl status: exit code %d\n%s%s", code, out, errs)
	}
}

// Who connects and says nothing is sent away by every port.
func TestWhoSaysNothingIsSentAway(t *testing.T) {
	a := newAuthority(t)
	c := newClusterWith(t, 1, a.prepare(a.client("orders", "ns/default/sa/orders")))
	ended := make(chan error, 4)
	for port := range 4 {
		conn, err := net.Dial("tcp", c.members[0].address(port))
		if err == nil {
			err = conn.SetReadDeadline(time.Now().Add(readyTime))
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		go func() {
			_, err := io.Copy(io.Discard, conn)
			if err != nil {
				err = fmt.Errorf("port %d: %w", port, err)
			}
			ended <- err
		}()
	}
	for range 4 {
		if err := <-ended; errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
	}
}

// A node is taken in over TLS by its own certificate, and not by another member's.
func TestANodeJoinsByItsCertificate(t *testing.T) {
	a := newAuthority(t).guarding()
	trust := a.client("orders", "ns/default/sa/orders")
	c := newClusterWith(t, 1, a.prepare(trust))
	first := c.members[0]
	ports, err := freeport.Find(4)
	if err != nil {
		t.Fatal(err)
	}
	joins := &member{id: 2, host: first.host, dir: filepath.Join(t.TempDir(), "n2"), ports: [4]int(ports), command: first.command}
	joins.config = filepath.Join(joins.dir, "stellmapd.toml")
	text := (&cluster{members: []*member{joins}}).configOf(joins) + fmt.Sprintf("[cluster]\njoin = [%q]\n", first.address(3))
	if err := errors.Join(os.MkdirAll(joins.dir, 0o755), os.WriteFile(joins.config, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
	a.prepare(trust)(joins)

	body := fmt.Sprintf(`{"nodeId":3,"uuid":"another","clusterId":100,"region":"local","grpcAddr":%q}`, joins.address(2))
	pair, err := tls.LoadX509KeyPair(a.file(a.of(joins)+".pem"), a.file(a.of(joins)+"-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	as := &cluster{t: t, client: &http.Client{Timeout: callTime, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trust.RootCAs, Certificates: []tls.Certificate{pair}}}}}
	as.must(http.MethodPost, first.urlOf(3)+"/admin/v1/members/join", body, http.StatusForbidden)

	c.start(joins)
	if _, err := process.Within(t.Context(), readyTime, "node 2 to be ready", func() error { return c.isReady(joins) }); err != nil {
		t.Fatal(err)
	}
	c.must(http.MethodPut, instanceURL(joins, "orders", "a"), registration(9000, "1"), http.StatusCreated)
	c.expect(first, "orders", "a", "1")
}

// Members get other certificates, one after the other, while clients write: over connections that stay, and over a new one for each
// call. Then a member and a workload are revoked: what they have open ends. No request of the others fails in all that, and no stream ends.
func TestCertificatesAreReplacedUnderLoad(t *testing.T) {
	a := newAuthority(t).guarding()
	trust, thief := a.client("orders", "ns/default/sa/orders"), a.client("thief", "ns/default/sa/thief")
	c := newClusterWith(t, 3, a.prepare(trust))
	leader := c.leader(c.members...)
	rest := slices.DeleteFunc(slices.Clone(c.members), func(m *member) bool { return m.id == leader.id%3+1 })
	victim := c.members[leader.id%3] // one that follows: what is in flight does not depend on it
	stays := streamsOf(t, trust, rest)
	ended := streamsOf(t, thief, rest)
	progress, stop := c.keepWriting(trust, rest...)
	for _, m := range rest { // what the other one has open stands on the certificate that is revoked
		progress()
		a.member(m)
		c.shows(m, `stellmap_tls_reloads_total{result="done"} 1`)
	}
	progress()
	began := time.Now()
	a.revoke(rest, a.of(victim), "thief")
	for range cap(ended) {
		select {
		case <-ended:
		case <-time.After(readyTime):
			t.Fatal("a stream of a revoked workload goes on")
		}
	}
	t.Logf("what the workload had open is gone after %v", time.Since(began).Round(10*time.Millisecond))
	for _, m := range rest {
		c.showsNot(m, fmt.Sprintf(`stellmap_peer_connected{peer="%d"} 1`, victim.id)) // one that follows may never have had it
	}
	t.Logf("and the member is cut off after %v", time.Since(began).Round(10*time.Millisecond))
	progress()
	t.Logf("%d writes, none failed", stop())
	select {
	case err := <-stays:
		t.Errorf("a stream of somebody who is good has ended: %v", err)
	default:
	}
}

// keepWriting has clients write at members, each with one who keeps its connection and one who does not, until stop, which says how often.
// A write that fails fails the test. progress waits for more of them.
func (c *cluster) keepWriting(trust *tls.Config, members ...*member) (progress func(), stop func() int64) {
	t := c.t
	fresh := &cluster{t: t, client: &http.Client{Timeout: callTime, Transport: &http.Transport{TLSClientConfig: trust, DisableKeepAlives: true}}}
	ctx, end := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	var done atomic.Int64
	for i, by := range []*cluster{c, fresh, c, fresh, c, fresh} {
		m := members[i/2%len(members)]
		writers.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				answer, err := by.call(context.Background(), http.MethodPut, instanceURL(m, "orders", fmt.Sprint("i-", i)), registration(9000, fmt.Sprint(n)))
				if err == nil {
					err = answer.want(http.StatusOK, http.StatusCreated)
				}
				if err != nil {
					t.Errorf("at %s: %v", m.name(), err)
					return
				}
				done.Add(1)
			}
		})
	}
	t.Cleanup(func() { end(); writers.Wait() })
	progress = func() {
		t.Helper()
		from := done.Load()
		if _, err := process.Within(t.Context(), readyTime, "writes", func() error {
			if done.Load() < from+60 {
				return errors.New("not yet")
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	return progress, func() int64 { end(); writers.Wait(); return done.Load() }
}

// streamsOf opens a watch over HTTP and a stream over gRPC at each of the members, and tells of each that ends.
func streamsOf(t *testing.T, with *tls.Config, members []*member) <-chan error {
	t.Helper()
	ended := make(chan error, 2*len(members))
	for _, m := range members {
		watch, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: with.Clone()}}).Get(m.url() + "/api/v2/watch")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { watch.Body.Close() })
		conn, err := grpc.NewClient(m.address(1), grpc.WithTransportCredentials(credentials.NewTLS(with.Clone())))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		health, err := grpc_health_v1.NewHealthClient(conn).Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{}, grpc.WaitForReady(true))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := health.Recv(); err != nil {
			t.Fatal(err)
		}
		go func() { // ends with the body
			_, err := io.Copy(io.Discard, watch.Body)
			ended <- err
		}()
		go func() { // ends with the connection
			for {
				if _, err := health.Recv(); err != nil {
					ended <- err
					return
				}
			}
		}()
	}
	return ended
}

// shows waits until a member's metrics have a line.
func (c *cluster) shows(m *member, line string) time.Duration {
	c.t.Helper()
	return c.untilShown(m, "to show "+line, line, true)
}

// showsNot is the same for a line that goes.
func (c *cluster) showsNot(m *member, line string) {
	c.t.Helper()
	c.untilShown(m, "to show no more "+line, line, false)
}

func (c *cluster) untilShown(m *member, what, line string, there bool) time.Duration {
	c.t.Helper()
	took, err := process.Within(c.t.Context(), readyTime, m.name()+" "+what, func() error {
		a, err := c.page(m, "/metrics")
		if err != nil {
			return err
		}
		if slices.Contains(strings.Split(string(a.body), "\n"), line) != there || a.status != http.StatusOK {
			return errors.New("not yet")
		}
		return nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return took
}

// A member whose certificate is revoked is cut off from the others within seconds, and a workload from its watch; the others go on.
func TestWhoIsRevokedIsCutOff(t *testing.T) {
	a := newAuthority(t).guarding()
	c := newClusterWith(t, 3, a.prepare(a.client("orders", "ns/default/sa/orders")))
	victim := c.leader(c.members...) // the worst to lose
	rest := slices.DeleteFunc(slices.Clone(c.members), func(m *member) bool { return m == victim })
	watcher := &http.Client{Transport: &http.Transport{TLSClientConfig: a.client("thief", "ns/default/sa/thief")}}
	watch, err := watcher.Get(rest[0].url() + "/api/v2/watch")
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Body.Close()
	ended := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, watch.Body)
		ended <- err
	}()

	began := time.Now()
	a.revoke(rest, a.of(victim), "thief")
	for _, m := range rest {
		c.showsNot(m, fmt.Sprintf(`stellmap_peer_connected{peer="%d"} 1`, victim.id)) // one that follows may never have had it
	}
	t.Logf("the member is cut off from all others after %v", time.Since(began).Round(10*time.Millisecond))
	select {
	case <-ended:
		t.Logf("and the watch after %v", time.Since(began).Round(10*time.Millisecond))
	case <-time.After(readyTime):
		t.Fatal("the watch of a revoked workload goes on")
	}
	c.writeAgain("after", rest...)
	c.expect(rest[0], "orders", "after", "after")
	c.expect(rest[1], "orders", "after", "after")
	for _, m := range rest {
		c.showsNot(m, fmt.Sprintf(`stellmap_peer_connected{peer="%d"} 1`, victim.id)) // one that follows may never have had it
	}
	if err := get(t, c.client.Transport.(*http.Transport).TLSClientConfig, rest[0].url()+"/readyz"); err != nil {
		t.Errorf("the others are not ready: %v", err)
	}
}

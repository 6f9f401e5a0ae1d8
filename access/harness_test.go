package access

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/stellmap/stellmap/access/authority"
)

// patience is how long tests wait for what must come.
const patience = 20 * time.Second

const (
	peerOne  = "spiffe://example.org/region/cn-bj/peer/1"
	peerTwo  = "spiffe://example.org/region/cn-bj/peer/2"
	abroad   = "spiffe://example.org/region/cn-sh/peer/1"
	workload = "spiffe://example.org/ns/prod/sa/orders"
	operator = "spiffe://example.org/operator/lin"
	follower = "spiffe://example.org/replicator/cn-sh"
	stranger = "spiffe://elsewhere.org/ns/prod/sa/orders"
)

func newAuthority(t *testing.T) *authority.Authority {
	t.Helper()
	a, err := authority.New(time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// pair is a certificate and its key, as files hold them.
type pair struct{ cert, key []byte }

func issue(t *testing.T, a *authority.Authority, r authority.Request) pair {
	t.Helper()
	if r.Validity == 0 {
		r.Validity = time.Hour / 2
	}
	cert, key, err := a.Issue(r, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return pair{cert, key}
}

func (p pair) tls(t *testing.T) tls.Certificate {
	t.Helper()
	c, err := tls.X509KeyPair(p.cert, p.key)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func caOf(t *testing.T, all ...*authority.Authority) []byte {
	t.Helper()
	var out []byte
	for _, a := range all {
		cert, _, err := a.PEM()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, cert...)
	}
	return out
}

// home is a member's files.
type home struct {
	t     *testing.T
	files Files
}

func newHome(t *testing.T, p pair, ca []byte) home {
	t.Helper()
	dir := t.TempDir()
	h := home{t, Files{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "ca.pem"), filepath.Join(dir, "crl.pem")}}
	h.put(h.files.CA, ca)
	h.put(h.files.CRL, nil)
	h.prove(p)
	return h
}

func (h home) put(path string, data []byte) {
	h.t.Helper()
	err := os.WriteFile(path+".new", data, 0o600)
	if err == nil {
		err = os.Rename(path+".new", path) // nobody reads half of it
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h home) prove(p pair) {
	h.t.Helper()
	h.put(h.files.Cert, p.cert)
	h.put(h.files.Key, p.key)
}

// running is a Source that reads its files again and again until the test ends.
type running struct {
	*Source
	t       *testing.T
	log     *syncedBuffer
	metrics *prometheus.Registry
}

// open is a Source that reads its files when the test looks.
func open(t *testing.T, h home, now func() time.Time) running {
	t.Helper()
	r := running{t: t, log: new(syncedBuffer), metrics: prometheus.NewRegistry()}
	var err error
	r.Source, err = Open(Config{Files: h.files, Now: now, Logger: slog.New(slog.NewTextHandler(r.log, nil)), Registerer: r.metrics})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func run(t *testing.T, h home) running {
	t.Helper()
	r := open(t, h, nil)
	r.every /= 20
	ctx, cancel := context.WithCancel(context.Background())
	var worker sync.WaitGroup
	worker.Go(func() { r.Run(ctx) })
	t.Cleanup(func() { cancel(); worker.Wait() })
	return r
}

// metric is one value, by its name and the value of its label.
func (r running) metric(name, label string) float64 {
	r.t.Helper()
	families, err := r.metrics.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if len(m.GetLabel()) == 0 && label == "" || len(m.GetLabel()) == 1 && m.GetLabel()[0].GetValue() == label {
				return valueOf(m)
			}
		}
	}
	r.t.Fatalf("there is no metric %s of %q", name, label)
	return 0
}

func valueOf(m *dto.Metric) float64 { return m.GetGauge().GetValue() + m.GetCounter().GetValue() }

// clock is a time that only the test moves.
type clock struct{ at atomic.Pointer[time.Time] }

func newClock() *clock {
	c, now := new(clock), time.Now()
	c.at.Store(&now)
	return c
}

func (c *clock) now() time.Time { return *c.at.Load() }

func (c *clock) advance(d time.Duration) {
	next := c.now().Add(d)
	c.at.Store(&next)
}

// until waits for a condition.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	ticks := time.NewTicker(5 * time.Millisecond)
	defer ticks.Stop()
	for !is() {
		select {
		case <-deadline.C:
			t.Fatalf("waited %v for %s", patience, what)
		case <-ticks.C:
		}
	}
}

// echo serves a door: it answers each byte with one.
func (r running) echo(d Door) (address string) {
	r.t.Helper()
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	l := r.Listener(raw, d)
	var workers sync.WaitGroup
	workers.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			workers.Go(func() { defer c.Close(); io.Copy(c, c) })
		}
	})
	r.t.Cleanup(func() { l.Close(); workers.Wait() })
	return raw.Addr().String()
}

// visit makes a connection with what a client has and says one byte over it.
func visit(t *testing.T, address string, ca []byte, with ...tls.Certificate) (*tls.Conn, error) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	return visitAs(t, address, &tls.Config{RootCAs: roots, Certificates: with, ServerName: "127.0.0.1", NextProtos: []string{"http/1.1", "h2"}})
}

func visitAs(t *testing.T, address string, c *tls.Config) (*tls.Conn, error) {
	t.Helper()
	raw, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	conn := tls.Client(raw, c)
	return conn, say(conn)
}

// say sends a byte and waits for its echo. With TLS 1.3 a client learns only so that it
// was refused.
func say(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := c.Write([]byte{1}); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err
}

type syncedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncedBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncedBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

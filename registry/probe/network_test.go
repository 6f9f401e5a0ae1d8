package probe

import (
	"bufio"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/stellmap/stellmap/internal/freeport"
	"github.com/stellmap/stellmap/registry"
)

// A site is the network as one member sees it, at home.
func site() *network {
	return newNetwork(Rules{Home: true}, nil, newMetrics().denied)
}

// tried is the outcome of a check of an address, given half a minute: the tests
// wait for what happens, not for the time to be over.
func tried(n *network, check registry.Check, address string) Outcome {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return n.try(ctx, check, endpointAt(address))
}

func endpointAt(address string) registry.Endpoint {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		panic(err)
	}
	var number int32
	fmt.Sscan(port, &number)
	return registry.Endpoint{Host: host, Port: number}
}

func mustPass(t *testing.T, o Outcome) {
	t.Helper()
	if o != passes {
		t.Fatalf("the outcome is %+v", o)
	}
}

func mustFail(t *testing.T, o Outcome, says string) {
	t.Helper()
	if o.Status != registry.StatusCritical || !strings.Contains(o.Reason, says) {
		t.Fatalf("the outcome is %+v, want it to say %q", o, says)
	}
}

// listen serves connections one after the other until the test ends.
func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serve(conn)
			conn.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

// refused is an address where nobody listens.
func refused(t *testing.T) string {
	t.Helper()
	addresses, err := freeport.Addresses(1)
	if err != nil {
		t.Fatal(err)
	}
	return addresses[0]
}

// TestHTTP shows what passes and what does not, and that a redirect leads nowhere.
func TestHTTP(t *testing.T) {
	var elsewhere atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer other.Close()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		switch q.URL.Path {
		case "/ok":
			if q.Method != http.MethodGet || q.URL.RawQuery != "deep=1" || !strings.HasPrefix(q.UserAgent(), "stellmap-check/") {
				w.WriteHeader(http.StatusTeapot)
			}
		case "/busy":
			w.WriteHeader(http.StatusTooManyRequests)
		case "/redirect":
			http.Redirect(w, q, other.URL, http.StatusFound)
		case "/long":
			for i := range 1_000 {
				w.Header().Set(fmt.Sprint("X-", i), "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
			}
		case "/endless":
			w.WriteHeader(http.StatusOK)
			w.(http.Flusher).Flush()
			<-q.Context().Done()
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer s.Close()
	at := s.Listener.Addr().String()
	check := func(path string) Outcome {
		return tried(site(), registry.Check{Kind: registry.CheckHTTP, Path: path}, at)
	}
	mustPass(t, check("/ok?deep=1"))
	mustPass(t, check("/endless")) // its body is not waited for
	mustFail(t, check("/"), "status 503")
	mustFail(t, check("/redirect"), "status 302 Found: redirects are not followed")
	mustEqual(t, "the calls of where it leads", elsewhere.Load(), 0)
	mustFail(t, check("/long"), "within 16384 bytes")
	mustEqual(t, "a busy one", check("/busy"), Outcome{registry.StatusWarning, "status 429 Too Many Requests"})
	mustFail(t, tried(site(), registry.Check{Kind: registry.CheckHTTP, Path: "/"}, refused(t)), "connection refused")
	mustFail(t, tried(site(), registry.Check{Kind: registry.CheckHTTP, Path: "/"}, listen(t, func(c net.Conn) { fmt.Fprint(c, "SSH-2.0\r\n\r\n") })), "malformed HTTP")
	mustFail(t, tried(site(), registry.Check{Kind: registry.CheckHTTP, Path: "/"}, listen(t, func(c net.Conn) { fmt.Fprint(c, strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 100)) })), "interim")
}

// TestCertificatesAreVerified shows what TLS asks for, over HTTP and by itself.
func TestCertificatesAreVerified(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // it is told of each check that does not trust it
	s.StartTLS()
	defer s.Close()
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	at := s.Listener.Addr().String()
	trusting := newNetwork(Rules{Home: true}, roots, newMetrics().denied)
	for kind, path := range map[string]string{registry.CheckHTTPS: "/", registry.CheckTLS: ""} {
		mustPass(t, tried(trusting, registry.Check{Kind: kind, Path: path}, at))
		mustPass(t, tried(trusting, registry.Check{Kind: kind, Path: path, ServerName: "example.com"}, at))
		mustFail(t, tried(trusting, registry.Check{Kind: kind, Path: path, ServerName: "other.test"}, at), "not other.test")
		mustFail(t, tried(site(), registry.Check{Kind: kind, Path: path}, at), "certificate")
		mustPass(t, tried(site(), registry.Check{Kind: kind, Path: path, TLSSkipVerify: true}, at))
	}
	plain := listen(t, func(c net.Conn) { fmt.Fprint(c, "220 hello\r\n") })
	mustFail(t, tried(site(), registry.Check{Kind: registry.CheckTLS}, plain), "tls")
}

// TestTCP shows a connection, and an answer that is expected.
func TestTCP(t *testing.T) {
	smtp := listen(t, func(c net.Conn) {
		fmt.Fprint(c, "220 mail.example ready\r\n")
		bufio.NewReader(c).ReadString('\n')
	})
	echo := listen(t, func(c net.Conn) {
		line, _ := bufio.NewReader(c).ReadString('\n')
		fmt.Fprint(c, line)
	})
	check := func(send, expect string) registry.Check {
		return registry.Check{Kind: registry.CheckTCP, Send: send, Expect: expect}
	}
	mustPass(t, tried(site(), check("", ""), smtp))
	mustPass(t, tried(site(), check("", "220 "), smtp))
	mustPass(t, tried(site(), check("are you there\n", "are you"), echo))
	mustFail(t, tried(site(), check("", "250 "), smtp), "does not begin with what is expected")
	mustFail(t, tried(site(), check("a\n", "a\nb"), echo), "of the 3 bytes that are expected 2 came")
	mustFail(t, tried(site(), check("", ""), refused(t)), "connection refused")

	away := newNetwork(Rules{}, nil, newMetrics().denied)
	away.rules.Allow = prefixes("127.0.0.0/8")
	mustPass(t, tried(away, check("a\n", "a"), echo))
	away.rules = Rules{}
	e := registry.Endpoint{Host: "192.0.2.1", Port: 80}
	mustFail(t, away.try(context.Background(), check("FLUSHALL\r\n", ""), e), "may not have anything sent to 192.0.2.1")
}

// TestATryEndsInTime shows that a server that is silent fails for that reason.
func TestATryEndsInTime(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	silent := listen(t, func(c net.Conn) { <-release })
	for _, check := range []registry.Check{
		{Kind: registry.CheckHTTP, Path: "/"}, {Kind: registry.CheckTCP, Expect: "a"}, {Kind: registry.CheckTLS}, {Kind: registry.CheckHTTPS, Path: "/"},
		{Kind: registry.CheckGRPC}, {Kind: registry.CheckRedis}, {Kind: registry.CheckMySQL},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		check.TimeoutSeconds = 1
		mustFail(t, site().try(ctx, check, endpointAt(silent)), "nothing within 1s: ")
		cancel()
	}
}

// TestGRPC shows the health protocol.
func TestGRPC(t *testing.T) {
	states := health.NewServer()
	states.SetServingStatus("orders", grpc_health_v1.HealthCheckResponse_SERVING)
	states.SetServingStatus("broken", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	certificate := httptest.NewTLSServer(nil)
	defer certificate.Close()
	plain := serveGRPC(t, states)
	secured := serveGRPC(t, states, grpc.Creds(credentials.NewServerTLSFromCert(&certificate.TLS.Certificates[0])))
	check := func(kind, service string, skip bool) registry.Check {
		return registry.Check{Kind: kind, Service: service, TLSSkipVerify: skip}
	}
	mustPass(t, tried(site(), check(registry.CheckGRPC, "", false), plain))
	mustPass(t, tried(site(), check(registry.CheckGRPC, "orders", false), plain))
	mustPass(t, tried(site(), check(registry.CheckGRPCS, "orders", true), secured))
	mustFail(t, tried(site(), check(registry.CheckGRPC, "broken", false), plain), "grpc.health.v1 says NOT_SERVING")
	mustFail(t, tried(site(), check(registry.CheckGRPC, "unknown", false), plain), `does not know the service "unknown"`)
	mustFail(t, tried(site(), check(registry.CheckGRPCS, "orders", false), secured), "certificate")
	mustFail(t, tried(site(), check(registry.CheckGRPC, "", false), serveGRPC(t, nil)), "has no grpc.health.v1")
	mustFail(t, tried(site(), check(registry.CheckGRPC, "", false), refused(t)), "connection refused")
}

func serveGRPC(t *testing.T, states *health.Server, options ...grpc.ServerOption) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(options...)
	if states != nil {
		grpc_health_v1.RegisterHealthServer(s, states)
	}
	done := make(chan error)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-done; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Errorf("serve: %v", err)
		}
	})
	return l.Addr().String()
}

// TestRedis shows what Redis says (as one of version 8 does), and what is not Redis.
func TestRedis(t *testing.T) {
	for answer, says := range map[string]string{
		"+PONG\r\n":                            "",
		"-NOAUTH Authentication required.\r\n": "",
		"-LOADING Redis is loading the dataset in memory\r\n":                   "Redis answers LOADING Redis is loading the dataset in memory",
		"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data\r\n": "Redis answers MASTERDOWN",
		"HTTP/1.1 400 Bad Request\r\n":                                          "is not Redis's",
		"":                                                                      "no answer to PING: EOF",
		strings.Repeat("a", 1000):                                               "is not Redis's",
	} {
		at := listen(t, func(c net.Conn) {
			ping := make([]byte, 14)
			if _, err := io.ReadFull(c, ping); err == nil && string(ping) == "*1\r\n$4\r\nPING\r\n" {
				fmt.Fprint(c, answer)
			}
		})
		o := tried(site(), registry.Check{Kind: registry.CheckRedis}, at)
		if says == "" {
			mustPass(t, o)
		} else {
			mustFail(t, o, says)
		}
	}
}

// packets are what a server of MySQL sends: the greeting, then one packet for each of the client's.
func mysqlServer(t *testing.T, packets ...string) (address string, logins *atomic.Int64) {
	logins = &atomic.Int64{}
	return listen(t, func(c net.Conn) {
		for n, p := range packets {
			if n > 0 {
				got, sequence, err := readAny(c)
				if err != nil || int(sequence) != 2*n-1 {
					return
				}
				if n == 1 && strings.Contains(got, mysqlUser) {
					logins.Add(1)
				}
			}
			if writePacket(c, byte(2*n), []byte(p)) != nil {
				return
			}
		}
	}), logins
}

// readAny reads a packet that may be empty.
func readAny(from io.Reader) (string, byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(from, head[:]); err != nil {
		return "", 0, err
	}
	payload := make([]byte, head[0])
	_, err := io.ReadFull(from, payload)
	return string(payload), head[3], err
}

// TestMySQL shows a login that a server refuses, as MariaDB 11.8 and MySQL 8.4 do.
func TestMySQL(t *testing.T) {
	const (
		greeting = "\x0a8.4.6\x00\x08\x00\x00\x00saltsalt\x00\xff\xff\xff\x02\x00\xff\xdf\x15\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00saltsaltsalt\x00caching_sha2_password\x00"
		denied   = "\xff\x15\x04#28000Access denied for user 'stellmap_check'@'10.0.0.1' (using password: NO)"
		full     = "\xff\x10\x04#08004Too many connections"
		fullSoon = "\xff\x10\x04Too many connections"
		blocked  = "\xff\x69\x04Host '10.0.0.1' is blocked because of many connection errors"
		notHere  = "\xff\x6a\x04Host '10.0.0.1' is not allowed to connect to this MariaDB server"
		another  = "\xfecaching_sha2_password\x00saltsaltsaltsaltsalt\x00"
		ok       = "\x00\x00\x00\x02\x00\x00\x00"
	)
	for name, c := range map[string]struct {
		packets []string
		says    string
	}{
		"refused":                    {[]string{greeting, denied}, ""},
		"refused, in another way":    {[]string{greeting, another, denied}, ""},
		"let in":                     {[]string{greeting, ok}, ""},
		"nobody may come from here":  {[]string{notHere}, ""},
		"full after the greeting":    {[]string{greeting, full}, "MySQL answers 1040: Too many connections"},
		"full":                       {[]string{fullSoon}, "MySQL answers 1040: Too many connections"},
		"shut out":                   {[]string{blocked}, "MySQL answers 1129: Host '10.0.0.1' is blocked"},
		"another error instead":      {[]string{denied}, "MySQL answers 1045"},
		"an error that is too short": {[]string{"\xff\x10"}, "without a number"},
		"another protocol":           {[]string{"\x09old\x00"}, "not MySQL's"},
		"no end of the version":      {[]string{"\x0a8.4"}, "not MySQL's"},
		"nothing":                    {nil, "no greeting: EOF"},
		"nothing after the login":    {[]string{greeting}, "no answer to the login"},
		"no end of it":               {[]string{greeting, another, another, another, another, another}, "not decided after 4 packets"},
	} {
		t.Run(name, func(t *testing.T) {
			at, logins := mysqlServer(t, c.packets...)
			o := tried(site(), registry.Check{Kind: registry.CheckMySQL}, at)
			if c.says == "" {
				mustPass(t, o)
			} else {
				mustFail(t, o, c.says)
			}
			mustEqual(t, "whether it has logged in", logins.Load() == 1, len(c.packets) > 1)
		})
	}
	http := listen(t, func(c net.Conn) { fmt.Fprint(c, "HTTP/1.1 400 Bad Request\r\n") })
	mustFail(t, tried(site(), registry.Check{Kind: registry.CheckMySQL}, http), "a packet of 5526600 bytes: 1 to 4096")
}

// TestTheAddressIsPinned shows that a name is asked about once, that all it stands
// for must be allowed, and that the one that was allowed is connected to.
func TestTheAddressIsPinned(t *testing.T) {
	hello := listen(t, func(c net.Conn) { fmt.Fprint(c, "hello") })
	n := newNetwork(Rules{Allow: prefixes("127.0.0.0/8")}, nil, newMetrics().denied)
	asked := 0
	names := map[string][]netip.Addr{
		"good.test": {netip.MustParseAddr("127.0.0.1")}, "mixed.test": {netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("169.254.169.254")},
		"mapped.test": {netip.MustParseAddr("::ffff:169.254.169.254")}, "none.test": {},
	}
	n.resolve = func(_ context.Context, host string) ([]netip.Addr, error) {
		asked++
		if asked > 1 { // it means another machine now
			return names["mapped.test"], nil
		}
		if addresses, ok := names[host]; ok {
			return addresses, nil
		}
		return nil, errors.New("no such host")
	}
	port := endpointAt(hello).Port
	for _, c := range []struct{ host, says string }{
		{"good.test", ""},
		{"mixed.test", "not tried: mixed.test stands for an address that is not allowed: 169.254.169.254 is where a cloud keeps its metadata"},
		{"mapped.test", "not tried: mapped.test stands for"},
		{"none.test", "it has no address"},
		{"unknown.test", "resolve unknown.test: no such host"},
		{"169.254.169.254", "not tried: 169.254.169.254 is where a cloud keeps its metadata"},
	} {
		asked = 0
		o := n.try(context.Background(), registry.Check{Kind: registry.CheckTCP, Expect: "hello"}, registry.Endpoint{Host: c.host, Port: port})
		if c.says == "" {
			mustPass(t, o)
		} else {
			mustFail(t, o, c.says)
		}
		if asked > 1 {
			t.Fatalf("%s was asked about %d times", c.host, asked)
		}
	}
}

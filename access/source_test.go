package access

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stellmap/stellmap/access/authority"
)

// member is what a certificate of a member is asked for with.
func member(uri string) authority.Request {
	return authority.Request{URI: uri, Hosts: []string{"127.0.0.1"}, Serves: true}
}

// Each port takes the roles that have business there, and nobody by another's certificate: one
// without an identity, of another authority, of another trust domain, or for servers only
// (CVE-2021-37219: any certificate of the authority spoke Raft; CVE-2023-44981: a missing id let anyone in).
func TestWhoComesInByWhichPort(t *testing.T) {
	ours, other := newAuthority(t), newAuthority(t)
	r := run(t, newHome(t, issue(t, ours, member(peerOne)), caOf(t, ours)))
	who := map[string]tls.Certificate{
		"a peer":                  issue(t, ours, member(peerTwo)).tls(t),
		"a workload":              issue(t, ours, authority.Request{URI: workload}).tls(t),
		"an operator":             issue(t, ours, authority.Request{URI: operator}).tls(t),
		"a replicator":            issue(t, ours, authority.Request{URI: follower}).tls(t),
		"nobody":                  issue(t, ours, authority.Request{Hosts: []string{"127.0.0.1"}}).tls(t),
		"of another authority":    issue(t, other, authority.Request{URI: operator}).tls(t),
		"of another trust domain": issue(t, ours, authority.Request{URI: stranger}).tls(t),
	}
	for _, c := range []struct {
		door Door
		in   []string
	}{
		{HTTP, []string{"a workload", "an operator"}},
		{XDS, []string{"a workload", "an operator"}},
		{Peers, []string{"a peer", "a replicator"}},
		{Admin, []string{"an operator", "a peer"}},
	} {
		address := r.echo(c.door)
		for name, certificate := range who {
			_, err := visit(t, address, caOf(t, ours), certificate)
			want := false
			for _, one := range c.in {
				want = want || one == name
			}
			if (err == nil) != want {
				t.Errorf("%s at the port %s: %v, let in should be %v", name, c.door.Port, err, want)
			}
		}
		if _, err := visit(t, address, caOf(t, ours)); err == nil {
			t.Errorf("without a certificate the port %s is open", c.door.Port)
		}
		if r.metric("stellmap_tls_certificates_refused_total", c.door.Port) == 0 {
			t.Errorf("those refused at %s are not counted", c.door.Port)
		}
	}
	if !strings.Contains(r.log.String(), "certificate refused") {
		t.Errorf("no refusal is in the log:\n%s", r.log)
	}
}

// Where anonymous callers are let in, one who brings a certificate must be somebody all the same.
func TestAnonymousCallers(t *testing.T) {
	ours, other := newAuthority(t), newAuthority(t)
	r := run(t, newHome(t, issue(t, ours, member(peerOne)), caOf(t, ours)))
	door := HTTP
	door.Anonymous = true
	address := r.echo(door)
	if _, err := visit(t, address, caOf(t, ours)); err != nil {
		t.Errorf("an anonymous caller is refused: %v", err)
	}
	if _, err := visitAs(t, address, &tls.Config{InsecureSkipVerify: true, GetClientCertificate: bring(issue(t, other, authority.Request{URI: operator}).tls(t))}); err == nil {
		t.Error("a certificate of another authority is let in")
	}
}

// bring has a client send a certificate although the server did not name its authority.
func bring(c tls.Certificate) func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c, nil }
}

// Members speak TLS 1.3 to each other; clients may come with 1.2, which is all that some have, and not with less.
func TestVersionsOfTLS(t *testing.T) {
	ours := newAuthority(t)
	r := run(t, newHome(t, issue(t, ours, member(peerOne)), caOf(t, ours)))
	for _, c := range []struct {
		door    Door
		as      tls.Certificate
		version uint16
		want    bool
	}{
		{Peers, issue(t, ours, member(peerTwo)).tls(t), tls.VersionTLS13, true},
		{Peers, issue(t, ours, member(peerTwo)).tls(t), tls.VersionTLS12, false},
		{HTTP, issue(t, ours, authority.Request{URI: workload}).tls(t), tls.VersionTLS12, true},
		{HTTP, issue(t, ours, authority.Request{URI: workload}).tls(t), tls.VersionTLS11, false},
		{XDS, issue(t, ours, authority.Request{URI: workload}).tls(t), tls.VersionTLS12, true},
	} {
		_, err := visitAs(t, r.echo(c.door), &tls.Config{
			InsecureSkipVerify: true, Certificates: []tls.Certificate{c.as}, MinVersion: tls.VersionTLS10, MaxVersion: c.version, NextProtos: []string{"h2", "http/1.1"},
		})
		if (err == nil) != c.want {
			t.Errorf("%s with %s: %v, let in should be %v", c.door.Port, tls.VersionName(c.version), err, c.want)
		}
	}
}

// A certificate that is revoked ends what its holder has open, on every port and in both directions, and lets it
// in no more; the others go on (GHSA-3wh4-j44w-pg92: the list was skipped on one listener).
func TestARevokedCertificateIsCutOffEverywhere(t *testing.T) {
	ours := newAuthority(t)
	h := newHome(t, issue(t, ours, member(peerOne)), caOf(t, ours))
	r := run(t, h)
	bad := map[string]pair{
		"http": issue(t, ours, authority.Request{URI: workload}), "xds": issue(t, ours, authority.Request{URI: workload}),
		"grpc": issue(t, ours, member(peerTwo)), "admin": issue(t, ours, authority.Request{URI: operator}),
	}
	good := map[string]pair{"http": issue(t, ours, authority.Request{URI: workload}), "xds": issue(t, ours, authority.Request{URI: workload}),
		"grpc": issue(t, ours, member(peerTwo)), "admin": issue(t, ours, authority.Request{URI: operator})}
	type visitor struct {
		address   string
		good, bad *tls.Conn
	}
	visitors := make(map[string]visitor)
	var list []byte
	for _, d := range []Door{HTTP, XDS, Peers, Admin} {
		v := visitor{address: r.echo(d)}
		var err [2]error
		v.good, err[0] = visit(t, v.address, caOf(t, ours), good[d.Port].tls(t))
		v.bad, err[1] = visit(t, v.address, caOf(t, ours), bad[d.Port].tls(t))
		if err := errors.Join(err[:]...); err != nil {
			t.Fatal(err)
		}
		visitors[d.Port] = v
		list = revoke(t, ours, list, bad[d.Port])
	}
	their := newHome(t, bad["grpc"], caOf(t, ours))
	out, err := r.Dial(t.Context(), run(t, their).echo(Peers), Peer("cn-bj", 2))
	if err == nil {
		err = say(out)
	}
	if err != nil {
		t.Fatal(err)
	}

	began := time.Now()
	h.put(h.files.CRL, list)
	for port, v := range visitors {
		mustEnd(t, "revoked on "+port, v.bad)
		if err := say(v.good); err != nil {
			t.Errorf("%s: the other connection is gone, too: %v", port, err)
		}
		if _, err := visit(t, v.address, caOf(t, ours), bad[port].tls(t)); err == nil {
			t.Errorf("%s: the revoked certificate is let in again", port)
		}
		if r.metric("stellmap_tls_connections_cut_total", port) != 1 || r.metric("stellmap_tls_connections", port) != 1 {
			t.Errorf("%s: what was cut is not counted", port)
		}
	}
	mustEnd(t, "to a revoked member", out)
	h.put(h.files.CRL, nil) // as a file is that is just being written
	until(t, "the empty list to be noticed", func() bool { return r.metric("stellmap_tls_reloads_total", "failed") == 1 })
	if _, err := visit(t, visitors["http"].address, caOf(t, ours), bad["http"].tls(t)); err == nil {
		t.Error("an empty list lets the revoked in again")
	}
	t.Logf("all cut %v after the list was written", time.Since(began).Round(time.Millisecond))
	if _, err := r.Dial(t.Context(), run(t, their).echo(Peers), Peer("cn-bj", 2)); !errors.Is(err, errRevoked) {
		t.Errorf("a revoked member is dialled: %v", err)
	}
}

func revoke(t *testing.T, a *authority.Authority, list []byte, p pair) []byte {
	t.Helper()
	list, err := a.Revoke(list, p.cert, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// mustEnd waits for the end of a connection that nothing is said over.
func mustEnd(t *testing.T, what string, c net.Conn) {
	t.Helper()
	err := c.SetReadDeadline(time.Now().Add(patience))
	if err == nil {
		_, err = io.ReadFull(c, make([]byte, 1))
	}
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%s: it is still open (%v)", what, err)
	}
}

// An authority that is taken out of the file is trusted no more: what it has let in is cut, and what another has goes on.
func TestAnAuthorityIsReplaced(t *testing.T) {
	before, after := newAuthority(t), newAuthority(t)
	h := newHome(t, issue(t, before, member(peerOne)), caOf(t, before, after))
	r := run(t, h)
	address := r.echo(HTTP)
	old, err := visit(t, address, caOf(t, before), issue(t, before, authority.Request{URI: workload}).tls(t))
	if err != nil {
		t.Fatal(err)
	}
	young, err := visit(t, address, caOf(t, before), issue(t, after, authority.Request{URI: workload}).tls(t))
	if err != nil {
		t.Fatal(err)
	}
	h.prove(issue(t, after, member(peerOne)))
	until(t, "the new certificate", func() bool {
		_, err := visit(t, address, caOf(t, after), issue(t, after, authority.Request{URI: workload}).tls(t))
		return err == nil
	})
	if err := errors.Join(say(old), say(young)); err != nil {
		t.Fatalf("a new certificate ends what is open: %v", err)
	}
	h.put(h.files.CA, caOf(t, after))
	mustEnd(t, "of the authority that was taken out", old)
	if err := say(young); err != nil {
		t.Errorf("the other is gone, too: %v", err)
	}
}

// What cannot be used leaves what is there in force, is told of once and counted; then the next good one is taken.
func TestBrokenFilesChangeNothing(t *testing.T) {
	ours, other := newAuthority(t), newAuthority(t)
	first, second := issue(t, ours, member(peerOne)), issue(t, ours, member(peerOne))
	h := newHome(t, first, caOf(t, ours))
	r := run(t, h)
	address := r.echo(HTTP)
	who := issue(t, ours, authority.Request{URI: workload}).tls(t)
	failures := 0.0
	for _, c := range []struct {
		name, path string
		data       []byte
	}{
		{"a certificate of another key", h.files.Cert, second.cert},
		{"half a certificate", h.files.Cert, first.cert[:len(first.cert)/2]},
		{"a certificate of another authority", h.files.Cert, issue(t, other, member(peerOne)).cert},
		{"no authority", h.files.CA, nil},
		{"an authority that is none", h.files.CA, first.cert},
		{"the authority and rubbish", h.files.CA, append(caOf(t, ours), "rubbish"...)},
		{"another authority alone", h.files.CA, caOf(t, other)},
		{"a list that is none", h.files.CRL, []byte("nothing is revoked")},
		{"a list of another authority", h.files.CRL, revoke(t, other, nil, issue(t, other, member(peerOne)))},
	} {
		before, err := os.ReadFile(c.path)
		if err != nil {
			t.Fatal(err)
		}
		failures++
		h.put(c.path, c.data)
		until(t, c.name+" to be noticed", func() bool { return r.metric("stellmap_tls_reloads_total", "failed") >= failures })
		if _, err := visit(t, address, caOf(t, ours), who); err != nil {
			t.Errorf("%s: nobody is let in any more: %v", c.name, err)
		}
		done := r.metric("stellmap_tls_reloads_total", "done")
		h.put(c.path, before)
		until(t, "what was there before", func() bool { return r.metric("stellmap_tls_reloads_total", "done") > done })
		if failed := r.metric("stellmap_tls_reloads_total", "failed"); failed > failures+1 {
			t.Errorf("%s is told of %v times", c.name, failed-failures+1)
		} else {
			failures = failed
		}
	}
	h.put(h.files.CA, make([]byte, fileBytesMax+1))
	until(t, "too large a file to be noticed", func() bool { return r.metric("stellmap_tls_reloads_total", "failed") > failures })
	h.put(h.files.CA, caOf(t, ours))
	h.prove(second)
	until(t, "the good pair", func() bool {
		c, err := visit(t, address, caOf(t, ours), who)
		return err == nil && c.ConnectionState().PeerCertificates[0].SerialNumber.Cmp(second.tls(t).Leaf.SerialNumber) == 0
	})
	runsOut := float64(second.tls(t).Leaf.NotAfter.Unix())
	until(t, "the metric to say when it runs out", func() bool { return r.metric("stellmap_tls_certificate_not_after_seconds", "") == runsOut }) // it is in force before that
}

// A member whose own certificate cannot be used hears of revocations and of new authorities all the same: else whoever is
// revoked, or late with a certificate, would go on to let in all others that are.
func TestWhoCannotProveItselfStillHearsOfRevocations(t *testing.T) {
	for _, c := range []struct {
		name  string
		wrong func(home, *clock, pair, []byte) []byte // gives the list to write
	}{
		{"run out", func(_ home, now *clock, _ pair, list []byte) []byte { now.advance(15 * time.Minute); return list }},
		{"no key", func(h home, _ *clock, _ pair, list []byte) []byte { os.Remove(h.files.Key); return list }},
		{"half a certificate", func(h home, _ *clock, mine pair, list []byte) []byte {
			h.put(h.files.Cert, mine.cert[:len(mine.cert)/2])
			return list
		}},
		{"revoked by the same list", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			ours, added := newAuthority(t), newAuthority(t)
			request := member(peerOne)
			request.Validity = 10 * time.Minute
			mine, now := issue(t, ours, request), newClock()
			h := newHome(t, mine, caOf(t, ours))
			r := open(t, h, now.now)
			address := r.echo(HTTP)
			bad, good := issue(t, ours, authority.Request{URI: workload}), issue(t, ours, authority.Request{URI: workload})
			revoked, err := visit(t, address, caOf(t, ours), bad.tls(t))
			if err != nil {
				t.Fatal(err)
			}
			kept, err := visit(t, address, caOf(t, ours), good.tls(t))
			if err != nil {
				t.Fatal(err)
			}

			list := revoke(t, ours, nil, bad)
			if c.wrong == nil {
				list = revoke(t, ours, list, mine)
			} else {
				list = c.wrong(h, now, mine, list)
			}
			h.put(h.files.CRL, list)
			h.put(h.files.CA, caOf(t, ours, added))
			r.look()
			mustEnd(t, "revoked", revoked)
			if _, err := visit(t, address, caOf(t, ours), bad.tls(t)); err == nil {
				t.Error("the revoked certificate is let in again")
			}
			if err := say(kept); err != nil {
				t.Errorf("the other connection is gone, too: %v", err)
			}
			if _, err := visit(t, address, caOf(t, ours), issue(t, added, authority.Request{URI: workload}).tls(t)); err != nil {
				t.Errorf("the new authority counts for nothing: %v", err)
			}
			if r.metric("stellmap_tls_reloads_total", "failed") != 1 || r.metric("stellmap_tls_files_unusable", "") != 1 || !strings.Contains(r.log.String(), "level=ERROR") {
				t.Errorf("nobody is told that the certificate cannot be used:\n%s", r.log)
			}

			h.prove(issue(t, added, member(peerOne)))
			r.look()
			if r.metric("stellmap_tls_reloads_total", "done") != 1 || r.metric("stellmap_tls_files_unusable", "") != 0 {
				t.Errorf("a good certificate is not taken:\n%s", r.log)
			}
		})
	}
}

// A certificate that comes before its time is taken when that is there, without anybody touching the files again. Until
// then the metric says so, and the log once a minute, not once a look.
func TestACertificateIsTakenWhenItsTimeComes(t *testing.T) {
	ours, now := newAuthority(t), newClock()
	h := newHome(t, issue(t, ours, member(peerOne)), caOf(t, ours))
	r := open(t, h, now.now)
	early := member(peerOne)
	early.Validity = time.Hour / 2
	cert, key, err := ours.Issue(early, now.now().Add(10*time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	next := pair{cert, key}
	h.prove(next)
	starts := next.tls(t).Leaf.NotBefore
	for now.now().Before(starts) {
		r.look()
		if r.metric("stellmap_tls_files_unusable", "") != 1 || r.metric("stellmap_tls_reloads_total", "failed") != 1 {
			t.Fatalf("%v before its time the trouble is not seen, or counted again", starts.Sub(now.now()))
		}
		now.advance(time.Second)
	}
	waited := int(10 * time.Minute / troubleSaidEvery)
	if told := strings.Count(r.log.String(), "level=ERROR"); told < 2 || told > waited {
		t.Errorf("it is told %d times, want some and at most %d", told, waited)
	}
	now.advance(time.Second)
	r.look()
	if r.metric("stellmap_tls_files_unusable", "") != 0 || r.metric("stellmap_tls_reloads_total", "done") != 1 {
		t.Errorf("it is not taken:\n%s", r.log)
	}
	if got, want := r.metric("stellmap_tls_certificate_not_after_seconds", ""), float64(next.tls(t).Leaf.NotAfter.Unix()); got != want {
		t.Errorf("the certificate runs out at %v, the metric says %v", want, got)
	}
}

// A start with what cannot be used is refused, and the error names the file.
func TestWhatAStartRefuses(t *testing.T) {
	ours := newAuthority(t)
	good := issue(t, ours, member(peerOne))
	list := revoke(t, ours, nil, good)
	for _, c := range []struct {
		name  string
		wrong func(home)
		says  []string
	}{
		{"no key", func(h home) { os.Remove(h.files.Key) }, []string{"key.pem", "no such file"}},
		{"run out", func(h home) {
			h.prove(issue(t, ours, authority.Request{URI: peerOne, Serves: true, Validity: -time.Second}))
		}, []string{"cert.pem", "expired"}},
		{"for clients only", func(h home) { h.prove(issue(t, ours, authority.Request{URI: peerOne})) }, []string{"cert.pem", "incompatible key usage"}},
		{"nobody's", func(h home) { h.prove(issue(t, ours, authority.Request{Serves: true})) }, []string{"cert.pem", "no identity"}},
		{"of another member", func(h home) { h.prove(issue(t, ours, member(peerTwo))) }, []string{"peer/2 is not node 1 of region cn-bj"}},
		{"of another region", func(h home) { h.prove(issue(t, ours, member(abroad))) }, []string{"cn-sh/peer/1 is not node 1"}},
		{"revoked", func(h home) { h.put(h.files.CRL, list) }, []string{"cert.pem", "revoked"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHome(t, good, caOf(t, ours))
			c.wrong(h)
			_, err := Open(Config{Files: h.files, Self: Peer("cn-bj", 1)})
			if err == nil {
				t.Fatal("it starts")
			}
			for _, part := range c.says {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%v: does not say %q", err, part)
				}
			}
		})
	}
}

// Who begins a handshake and never ends it holds up nobody (GHSA-6vch-q96h-7gc3); the bound on its own time is the server's.
func TestAHandshakeThatNeverEndsHoldsUpNobody(t *testing.T) {
	ours := newAuthority(t)
	r := run(t, newHome(t, issue(t, ours, member(peerOne)), caOf(t, ours)))
	address := r.echo(HTTP)
	for range 10 {
		silent, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { silent.Close() })
	}
	if _, err := visit(t, address, caOf(t, ours), issue(t, ours, authority.Request{URI: workload}).tls(t)); err != nil {
		t.Error(err)
	}
	if n := r.metric("stellmap_tls_connections", "http"); n != 1 {
		t.Errorf("%v connections are kept, want the one that has proved who it is", n)
	}
}

// A connection that is closed is forgotten, also one whose handshake failed.
func TestConnectionsAreForgotten(t *testing.T) {
	ours := newAuthority(t)
	r := run(t, newHome(t, issue(t, ours, member(peerOne)), caOf(t, ours)))
	address := r.echo(HTTP)
	for range 5 {
		c, err := visit(t, address, caOf(t, ours), issue(t, ours, authority.Request{URI: workload}).tls(t))
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	if _, err := r.Dial(t.Context(), address, Peer("cn-bj", 2)); err == nil {
		t.Error("node 1 is taken for node 2")
	}
	for _, port := range []string{"http", outgoing} {
		until(t, "no connection of "+port, func() bool { return r.metric("stellmap_tls_connections", port) == 0 })
	}
}

// Whoever takes connections has a certificate for that: a client's key that was stolen is no server. And it is the member that
// was meant, of this trust domain.
func TestWhoIsTakenForAMember(t *testing.T) {
	ours, other := newAuthority(t), newAuthority(t)
	r := run(t, newHome(t, issue(t, ours, member(peerOne)), caOf(t, ours)))
	for _, c := range []struct {
		name string
		as   pair
		want bool
	}{
		{"the member", issue(t, ours, member(peerTwo)), true},
		{"with a client's certificate", issue(t, ours, authority.Request{URI: peerTwo}), false},
		{"another member", issue(t, ours, member(peerOne)), false},
		{"a member of another region", issue(t, ours, member(abroad)), false},
		{"a workload that serves", issue(t, ours, member(workload)), false},
		{"of another authority", issue(t, other, member(peerTwo)), false},
		{"of another trust domain", issue(t, ours, member("spiffe://elsewhere.org/region/cn-bj/peer/2")), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{c.as.tls(t)}})
			if err != nil {
				t.Fatal(err)
			}
			shaken := make(chan struct{})
			go func() {
				defer close(shaken)
				if in, err := l.Accept(); err == nil {
					in.(*tls.Conn).Handshake() // the other side says how it went
					in.Close()
				}
			}()
			defer func() { l.Close(); <-shaken }()
			out, err := r.Dial(t.Context(), l.Addr().String(), Peer("cn-bj", 2))
			if (err == nil) != c.want {
				t.Errorf("%v, taken should be %v", err, c.want)
			}
			if err == nil {
				out.Close()
			}
		})
	}
}

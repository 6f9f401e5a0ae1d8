package federation

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	replicationv1 "github.com/stellmap/stellmap/api/proto/stellmap/replication/v1"
	"github.com/stellmap/stellmap/registry"
)

func (c *copying) problem(importer int) string {
	p := c.importers[importer].Links()[0].Problem
	if p == nil {
		return ""
	}
	return p.Code
}

// TestALinkSaysWhatIsWrong shows what the member that follows a region says of that: whom
// it follows, what keeps it from it and since when, and nothing while it is not to.
func TestALinkSaysWhatIsWrong(t *testing.T) {
	source := newRegion(t, 1, registry.HistoryBounds{})
	at := source.members[0]
	at.put("orders", "a", 80)
	c := newCopying(t, source, 2)
	c.mustBecomeEqual()
	mustEqual(t, "how it is followed", c.importers[0].Links()[0], Link{Region: here, Address: "passthrough:///0", Member: 2, FeatureLevel: 1})
	mustEqual(t, "how the one follows that does not lead", c.importers[1].Links()[0], Link{Region: here})

	c.link(true)
	eventually(t, "a problem", func() bool { return c.problem(0) == "unreachable" })
	first := c.importers[0].Links()[0]
	mustEqual(t, "who answers", first.Member, 0)
	if text := first.Problem.Text; !strings.Contains(text, "cannot be reached") {
		t.Errorf("it says %q", text)
	}
	attempts := counted(t, c.metrics[0], "streams_ended_total", "unreachable")
	eventually(t, "another attempt", func() bool { return counted(t, c.metrics[0], "streams_ended_total", "unreachable") > attempts+1 })
	if now := c.importers[0].Links()[0].Problem; now == nil || now.Since != first.Problem.Since {
		t.Errorf("the same problem was %+v and is %+v", first.Problem, now)
	}
	c.link(false)
	eventually(t, "an end of the problem", func() bool { return c.problem(0) == "" })
	c.mustBecomeEqual()

	at.stop()
	at.restart(Config{Token: "another token of the tests"}, nil)
	eventually(t, "a refusal", func() bool { return c.problem(0) == "unauthorized" })
	if text := c.importers[0].Links()[0].Problem.Text; !strings.Contains(text, "passthrough:///0 refuses: the replication token") {
		t.Errorf("it says %q", text)
	}
	c.lead(-1)
	eventually(t, "a member that follows nobody", func() bool { return c.importers[0].Links()[0] == Link{Region: here} })
}

// TestANewerSourceIsToldAsSuch shows that a region of a newer feature level is followed,
// and said to be newer before it tells anything that cannot be read; an older one is not.
func TestANewerSourceIsToldAsSuch(t *testing.T) {
	for level, want := range map[uint32]string{0: "newer_version", 1: "", 2: ""} {
		t.Run(fmt.Sprint(level), func(t *testing.T) {
			source := newRegion(t, 1, registry.HistoryBounds{})
			source.members[0].put("orders", "a", 80)
			c := newCopying(t, source, 1, func(i *Importer) { i.understands = level })
			c.mustBecomeEqual()
			mustEqual(t, "what is said", c.problem(0), want)
		})
	}
}

// TestWhatIsUnreadableStaysSaid shows that a problem with what is told is not forgotten
// when the same member is met again, but when the copy comes further.
func TestWhatIsUnreadableStaysSaid(t *testing.T) {
	s := &source{Source: Source{Region: "here", Addresses: []string{"a"}}, importer: &Importer{understands: 1}}
	now := time.Unix(100, 0)
	said := func() string {
		if p := s.link.shown(1).Problem; p != nil {
			return fmt.Sprint(p.Code, " ", p.Since.Unix(), " ", strings.Contains(p.Text, "feature level 2"))
		}
		return ""
	}
	s.link.meets(&replicationv1.Identity{Member: 3, FeatureLevel: 2})
	mustEqual(t, "what is said of a newer one", s.link.shown(1).Problem.Code, problemNewer)
	s.link.fails(s.problemOf(fmt.Errorf("%w: format 9", registry.ErrUnreadable)), now)
	s.link.tries("a")
	s.link.meets(&replicationv1.Identity{Member: 3, FeatureLevel: 2})
	s.link.fails(s.problemOf(fmt.Errorf("%w: format 9", registry.ErrUnreadable)), now.Add(time.Minute))
	mustEqual(t, "what is said of what cannot be read", said(), "unreadable 100 true")
	s.link.meets(&replicationv1.Identity{Member: 3, FeatureLevel: 1})
	mustEqual(t, "what is said when it was met again", said(), "unreadable 100 true")
	s.link.advances()
	mustEqual(t, "what is said when the copy has come further", said(), "")
}

// TestWhatKeepsARegionFromBeingFollowed shows in which words errors are told.
func TestWhatKeepsARegionFromBeingFollowed(t *testing.T) {
	s := &source{Source: Source{Region: "here", Addresses: []string{"10.2.0.1:19090"}}, importer: &Importer{limits: importDefaults()}}
	ended := func(code codes.Code, text string) error {
		return fmt.Errorf("what 10.2.0.1:19090 tells has ended: %w", status.Error(code, text))
	}
	for _, one := range []struct {
		err        error
		code, text string
	}{
		{ended(codes.Unavailable, `connection error: desc = "transport: Error while dialing: dial tcp 10.2.0.1:19090: connect: connection refused"`),
			"unreachable", "10.2.0.1:19090 cannot be reached: dial tcp 10.2.0.1:19090: connect: connection refused"},
		{ended(codes.Unavailable, `connection error: desc = "error reading server preface: remote error: tls: certificate required"`),
			"tls", "10.2.0.1:19090 and this member do not take each other for members of their regions: error reading server preface: remote error: tls: certificate required; look at the files of [tls] on both sides"},
		{errSilent, "silent", "10.2.0.1:19090 has said nothing for 35s"},
		{fmt.Errorf("take in: %w", registry.ErrRegionFull), "full", "take in: registry: the copies of other regions are full; it is tried again in some minutes, or when that is done"},
		{ended(codes.Internal, "it broke"), "failed", "what 10.2.0.1:19090 tells has ended: rpc error: code = Internal desc = it broke"},
		{errNotWanted, "not_wanted", errNotWanted.Error()},
	} {
		got := s.problemOf(one.err)
		mustEqual(t, "the problem", got, Problem{Code: one.code, Text: one.text})
	}
	mustEqual(t, "the length of a long one", len(s.problemOf(ended(codes.Internal, strings.Repeat("x", 2000))).Text), problemBytesMax+len("…"))
}

// TestARegionThatSpeaksNoTLS shows that a real refusal of TLS is told from a way that is cut.
func TestARegionThatSpeaksNoTLS(t *testing.T) {
	c := newCopying(t, newRegion(t, 1, registry.HistoryBounds{}), 1)
	s := &source{Source: c.importers[0].sources[0].Source, importer: c.importers[0], key: here}
	s.Dial = []grpc.DialOption{grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{ServerName: "here"})), grpc.WithContextDialer(c.reach)}
	mustEqual(t, "why it is not followed", s.problemOf(s.follow(context.Background())).Code, "tls")
}

package federation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	replicationv1 "github.com/stellmap/stellmap/api/proto/stellmap/replication/v1"
	"github.com/stellmap/stellmap/registry"
)

// A Link is how a region is followed, as the member knows that does. Nothing of it is
// committed: that a region cannot be reached is no news that a log should grow by.
type Link struct {
	Region       registry.RegionKey
	Address      string   // of the region's member that is followed, or tried; "" = this member does not follow it
	Member       uint64   // who answers there; 0 = nobody
	FeatureLevel uint32   // that the region's cluster works at; 0 = it was not met
	Problem      *Problem // nil = none
}

// A Problem is why a region is not followed, or may soon not be.
type Problem struct {
	Code  string // for programs; the reason of metrics, too
	Text  string // what it is, and what to do
	Since time.Time
}

// The codes of problems. What a region refuses has the region's own.
const (
	problemUnreachable  = "unreachable"
	problemTLS          = "tls"
	problemWrongCluster = "wrong_cluster"
	problemSilent       = "silent"
	problemUnreadable   = "unreadable"
	problemNewer        = "newer_version" // it is followed all the same
	problemFull         = "full"
	problemFailed       = "failed"
)

// problemBytesMax is how long the text of a problem is at most.
const problemBytesMax = 512

// Links are how the sources are followed by this member, as the settings list them.
func (i *Importer) Links() []Link {
	out := make([]Link, len(i.sources))
	for n, s := range i.sources {
		out[n] = s.link.shown(i.understands)
		out[n].Region = s.key
	}
	return out
}

// A linkState is a Link that is kept up to date.
type linkState struct {
	mu sync.Mutex // guards what follows
	at Link
}

func (l *linkState) shown(understands uint32) Link {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.at
	if out.Problem == nil && out.FeatureLevel > understands {
		out.Problem = &Problem{Code: problemNewer, Text: newerText(out.FeatureLevel, understands)}
	}
	return out
}

func newerText(level, understands uint32) string {
	return fmt.Sprintf("it works at feature level %d, and this version knows up to %d: what it writes may not be readable here; run its version here, too", level, understands)
}

// tries says which member is tried. What was wrong before stays until that works.
func (l *linkState) tries(address string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.at.Address, l.at.Member = address, 0
}

// meets says who has answered. What is wrong with what it tells shows only later.
func (l *linkState) meets(who *replicationv1.Identity) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.at.Member, l.at.FeatureLevel = who.GetMember(), who.GetFeatureLevel()
	if p := l.at.Problem; p != nil && p.Code != problemUnreadable && p.Code != problemFull {
		l.at.Problem = nil
	}
}

// advances says that the copy has come further.
func (l *linkState) advances() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.at.Problem = nil
}

// fails keeps a problem, since when it has been there.
func (l *linkState) fails(p Problem, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p.Since = now
	if old := l.at.Problem; old != nil && old.Code == p.Code {
		p.Since = old.Since
	}
	l.at.Problem, l.at.Member = &p, 0
}

func (l *linkState) level() uint32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.at.FeatureLevel
}

// rests says that this member is not to follow the source.
func (l *linkState) rests() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.at = Link{}
}

// problemOf is what an operator is told of an error that has ended a stream.
func (s *source) problemOf(err error) Problem {
	p := Problem{Code: whyEnded(err), Text: err.Error()}
	said := status.Convert(errors.Unwrap(err)).Message()
	switch p.Code {
	case problemUnreachable:
		p.Text = fmt.Sprintf("%s cannot be reached: %s", s.address(), plainCause(said))
	case problemTLS:
		p.Text = fmt.Sprintf("%s and this member do not take each other for members of their regions: %s; look at the files of [tls] on both sides", s.address(), plainCause(said))
	case problemUnreadable:
		p.Text = fmt.Sprintf("%s tells what this version cannot read: %v; run its version here, too, or stellmapctl federation resync %s when it is told no more; it is tried again in some minutes", s.address(), err, s.Region)
		if level, own := s.link.level(), s.importer.understands; level > own {
			p.Text = newerText(level, own) + ": " + p.Text
		}
	case problemFull:
		p.Text = fmt.Sprintf("%v; it is tried again in some minutes, or when that is done", err)
	case problemSilent:
		p.Text = fmt.Sprintf("%s has said nothing for %v", s.address(), s.importer.limits.silence)
	default:
		if refusedBy(err) != "" {
			p.Text = fmt.Sprintf("%s refuses: %s", s.address(), said)
		}
	}
	p.Text = clip(p.Text, problemBytesMax)
	return p
}

// plainCause is what is behind the words that gRPC puts around an error of a connection.
func plainCause(said string) string {
	for _, around := range []string{"connection error: desc = ", "transport: ", "Error while dialing: "} {
		said = strings.TrimPrefix(strings.Trim(said, `"`), around)
	}
	return cmp.Or(said, "the connection has ended")
}

// refusedBy is the reason for which a source has refused; "" = it has not.
func refusedBy(err error) string {
	for _, d := range status.Convert(errors.Unwrap(err)).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == domain {
			return strings.ToLower(info.GetReason())
		}
	}
	return ""
}

// errWrongCluster is that another cluster answers than is meant.
var errWrongCluster = errors.New("federation: it is another cluster")

// whyEnded is why a stream was given up, in a word.
func whyEnded(err error) string {
	switch {
	case errors.Is(err, errNotWanted), errors.Is(err, registry.ErrRegionPaused), errors.Is(err, context.Canceled):
		return "not_wanted"
	case errors.Is(err, registry.ErrCursorDiffers):
		return "cursor_differs"
	case errors.Is(err, registry.ErrRegionFull):
		return problemFull
	case errors.Is(err, registry.ErrUnreadable):
		return problemUnreadable
	case errors.Is(err, errSilent):
		return problemSilent
	case errors.Is(err, errWrongCluster):
		return problemWrongCluster
	}
	if reason := refusedBy(err); reason != "" {
		return reason
	}
	if s, ok := status.FromError(errors.Unwrap(err)); ok && s.Code() == codes.Unavailable {
		return unreachedOf(s.Message())
	}
	return problemFailed
}

// unreachedOf tells what TLS refuses, of either side, from what cannot be reached: gRPC
// has one code for both, and says in its text only what it was.
func unreachedOf(said string) string {
	for _, sign := range []string{"authentication handshake failed", "tls: ", "x509: "} {
		if strings.Contains(said, sign) {
			return problemTLS
		}
	}
	return problemUnreachable
}

package federation

import (
	"context"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
	replicationv1 "github.com/stellmap/stellmap/api/proto/stellmap/replication/v1"
	"github.com/stellmap/stellmap/registry"
)

// A teller is a source that tells each who follows it the same, and then ends the stream
// if it has a reason to.
type teller struct {
	tells []*replicationv1.FollowResponse
	ends  error // nil = it waits
	begun atomic.Int64
}

func (t *teller) reach(*source) (replicationv1.ReplicationServiceClient, io.Closer, error) {
	return t, io.NopCloser(nil), nil
}

func (t *teller) Follow(ctx context.Context, _ ...grpc.CallOption) (grpc.BidiStreamingClient[replicationv1.FollowRequest, replicationv1.FollowResponse], error) {
	t.begun.Add(1)
	return &tellerStream{ctx: ctx, of: t}, nil
}

type tellerStream struct {
	grpc.ClientStream
	ctx  context.Context
	of   *teller
	told int
}

// Send is as gRPC has it: that the other side has ended the stream is io.EOF, whatever for.
func (s *tellerStream) Send(*replicationv1.FollowRequest) error {
	if s.of.ends != nil {
		return io.EOF
	}
	return nil
}

func (s *tellerStream) Recv() (*replicationv1.FollowResponse, error) {
	if s.told++; s.told <= len(s.of.tells) {
		return s.of.tells[s.told-1], nil
	}
	if s.of.ends != nil {
		return nil, s.of.ends
	}
	<-s.ctx.Done()
	return nil, status.FromContextError(s.ctx.Err()).Err()
}

var isHere = &replicationv1.FollowResponse{Kind: &replicationv1.FollowResponse_Identity{Identity: &replicationv1.Identity{Region: "here", ClusterId: 100, Incarnation: "cafe", Member: 2}}}

// TestWhyASourceHasEndedAStreamIsHeard shows that the reason of a source reaches the
// operator, also when its end was noticed by sending: the hello, or an acknowledgement.
func TestWhyASourceHasEndedAStreamIsHeard(t *testing.T) {
	refused, err := status.New(codes.ResourceExhausted, "sixteen follow this member").WithDetails(&errdetails.ErrorInfo{Domain: domain, Reason: "BUSY"})
	if err != nil {
		t.Fatal(err)
	}
	for name, tells := range map[string][]*replicationv1.FollowResponse{"at the hello": nil, "at an acknowledgement": {isHere}} {
		t.Run(name, func(t *testing.T) {
			from := &teller{tells: tells, ends: refused.Err()}
			c := newCopying(t, newRegion(t, 1, registry.HistoryBounds{}), 1, func(i *Importer) { i.reach = from.reach })
			ended := func(reason string) float64 { return counted(t, c.metrics[0], "streams_ended_total", reason) }
			eventually(t, "many ends", func() bool { return ended("busy")+ended("failed") >= 20 }) // each may lose the reason
			eventually(t, "what the source said", func() bool {
				p := c.importers[0].Links()[0].Problem // which is none for a moment when the source is met
				return p != nil && p.Text == "passthrough:///0 refuses: sixteen follow this member"
			})
			mustEqual(t, "ends without the reason", ended("failed"), 0)
		})
	}
}

// TestWhatCannotBeTakenInIsNotToldOverAndOver shows that a full sync which comes to nothing
// is not begun anew before minutes have passed, or somebody has done something.
func TestWhatCannotBeTakenInIsNotToldOverAndOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from := &teller{tells: []*replicationv1.FollowResponse{
			isHere,
			{Kind: &replicationv1.FollowResponse_Begin{Begin: &replicationv1.Begin{Revision: 9}}},
			{Kind: &replicationv1.FollowResponse_Page{Page: &replicationv1.Page{Instances: []*replicationv1.Instance{
				{Namespace: "prod", Service: "orders", Id: "a", Record: &recordv1.InstanceRecord{Format: 99}},
			}}}},
		}}
		c := newCopying(t, newRegion(t, 1, registry.HistoryBounds{}), 1, func(i *Importer) {
			i.reach, i.limits, i.jitter = from.reach, importDefaults(), func(time.Duration) time.Duration { return 0 }
		})
		attempts := func(after time.Duration, want int64) {
			t.Helper()
			rest(t.Context(), after)
			synctest.Wait()
			mustEqual(t, "how often all was told", from.begun.Load(), want)
		}
		control := func(action registry.RegionAction) {
			t.Helper()
			if _, err := c.registry.ControlRegion(context.Background(), here, action); err != nil {
				t.Fatal(err)
			}
		}
		const soon = leadEvery + time.Millisecond
		attempts(soon, 1)
		mustEqual(t, "the problem", c.problem(0), "unreadable")
		attempts(mendedEvery-time.Second, 1)
		attempts(2*time.Second, 2)
		mustEqual(t, "the problem that is still there", c.problem(0), "unreadable")

		attempts(time.Minute, 2)
		control(registry.RegionResync)
		attempts(soon, 3)

		attempts(time.Minute, 3)
		control(registry.RegionPause)
		attempts(mendedEvery, 3)
		mustEqual(t, "the problem of one that is not followed", c.problem(0), "")
		control(registry.RegionResume)
		attempts(soon, 4)

		c.lead(-1)
		attempts(mendedEvery, 4)
		c.lead(0)
		attempts(soon, 5)
	})
}

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	replicationv1 "github.com/stellmap/stellmap/api/proto/stellmap/replication/v1"
	"github.com/stellmap/stellmap/internal/process"
)

const replicationToken = "the-replication-token-of-tests"

// A replicator follows a region, member by member.
type replicator struct {
	t       *testing.T
	hello   *replicationv1.Hello
	has     map[string]string // revision and value, by instance
	syncing map[string]string // nil = it is not told all there is
	syncs   int
}

// A copy of a region goes on at another member when the one that serves it is killed, and at that one when it is
// back, without being told everything anew; whatever member it follows, it has what a list has.
func TestACopyOfARegionGoesOnAtAnyMember(t *testing.T) {
	c := newClusterWith(t, 3, func(m *member) {
		text, err := os.ReadFile(m.config)
		if err == nil {
			err = os.WriteFile(m.config, fmt.Appendf(text, "[auth]\nreplication_token = %q\n", replicationToken), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	r := &replicator{t: t, hello: &replicationv1.Hello{Name: "mirror", SourceRegion: "local", SourceClusterId: 100}}
	put := func(m *member, id, value string) (revision uint64) {
		t.Helper()
		_, err := process.Within(t.Context(), readyTime, "a write", func() error {
			a, err := c.call(t.Context(), http.MethodPut, instanceURL(m, "orders", id), registration(9000, value))
			if err != nil {
				return err
			}
			revision = a.revision
			return a.want(http.StatusOK, http.StatusCreated)
		})
		if err != nil {
			t.Fatal(err)
		}
		return revision
	}
	serving := c.leader(c.members...)
	others := c.others(serving)
	for n := range 40 {
		put(serving, fmt.Sprint("i", n), "first")
	}
	r.follow(serving, put(serving, "i0", "second"))
	r.mustMatch(c, serving)
	if err := r.refusedBy(serving, "another token of the tests"); status.Code(err) != codes.Unauthenticated {
		t.Fatalf("with another token it is told %v", err)
	}

	c.kill(serving)
	for n := range 20 {
		put(others[n%2], fmt.Sprint("i", 30+n), "third")
	}
	last := c.must(http.MethodDelete, instanceURL(others[0], "orders", "i3"), "", http.StatusOK, http.StatusNoContent).revision
	for _, m := range others {
		r.follow(m, last)
		r.mustMatch(c, m)
		last = put(m, "i1", m.name())
	}
	c.start(serving)
	c.mustBeReady()
	r.follow(serving, last)
	r.mustMatch(c, serving)
	if r.syncs != 1 {
		t.Errorf("it was told everything %d times", r.syncs)
	}
}

// open begins a stream.
func (r *replicator) open(ctx context.Context, m *member, token string) (replicationv1.ReplicationService_FollowClient, func(), error) {
	conn, err := grpc.NewClient(m.address(2), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, nil, err
	}
	stream, err := replicationv1.NewReplicationServiceClient(conn).Follow(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token))
	if err == nil {
		err = stream.Send(&replicationv1.FollowRequest{Kind: &replicationv1.FollowRequest_Hello{Hello: r.hello}})
	}
	if errors.Is(err, io.EOF) { // it has been refused already, and Recv says why
		err = nil
	}
	return stream, func() { conn.Close() }, err
}

func (r *replicator) refusedBy(m *member, token string) error {
	stream, end, err := r.open(r.t.Context(), m, token)
	if err != nil {
		return err
	}
	defer end()
	_, err = stream.Recv()
	return err
}

// follow takes in what a member tells, up to a revision.
func (r *replicator) follow(m *member, upTo uint64) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	stream, end, err := r.open(ctx, m, replicationToken)
	if err != nil {
		r.t.Fatal(err)
	}
	defer end()
	for r.hello.GetAfter().GetRevision() < upTo {
		told, err := stream.Recv()
		if err != nil {
			r.t.Fatalf("%s, on the way to revision %d: %v", m.name(), upTo, err)
		}
		r.hear(told)
		if err := stream.Send(&replicationv1.FollowRequest{Kind: &replicationv1.FollowRequest_Ack{Ack: &replicationv1.Ack{Sequence: told.GetSequence()}}}); err != nil {
			r.t.Fatal(err)
		}
	}
}

func (r *replicator) hear(told *replicationv1.FollowResponse) {
	switch k := told.GetKind().(type) {
	case *replicationv1.FollowResponse_Begin:
		r.syncing = make(map[string]string)
		r.syncs++
	case *replicationv1.FollowResponse_Page:
		for _, i := range k.Page.GetInstances() {
			r.syncing[i.GetId()] = copyOf(i)
		}
	case *replicationv1.FollowResponse_End:
		r.has, r.syncing, r.hello.After = r.syncing, nil, k.End.GetCursor()
	case *replicationv1.FollowResponse_Changes:
		for _, one := range k.Changes.GetChanges() {
			if gone := one.GetGone(); gone != nil {
				delete(r.has, gone.GetId())
				continue
			}
			r.has[one.GetPut().GetId()] = copyOf(one.GetPut())
		}
		if k.Changes.GetCursor() != nil {
			r.hello.After = k.Changes.GetCursor()
		}
	case *replicationv1.FollowResponse_Progress:
		r.hello.After = k.Progress.GetCursor()
	}
}

// copyOf is what the test compares of an instance.
func copyOf(i *replicationv1.Instance) string {
	value := ""
	for _, p := range i.GetRecord().GetSpec().GetMetadata() {
		value = p.GetValue()
	}
	return value
}

// mustMatch compares with a list of the member.
func (r *replicator) mustMatch(c *cluster, m *member) {
	r.t.Helper()
	a := c.must(http.MethodGet, m.url()+"/api/v2/namespaces/default/services/orders/instances?status=any&limit=1000", "", http.StatusOK)
	var list struct {
		Instances []struct {
			InstanceID string            `json:"instanceId"`
			Metadata   map[string]string `json:"metadata"`
		} `json:"instances"`
	}
	if err := json.Unmarshal(a.body, &list); err != nil {
		r.t.Fatal(err)
	}
	want := make(map[string]string)
	for _, i := range list.Instances {
		want[i.InstanceID] = i.Metadata["value"]
	}
	if len(want) == 0 || !maps.Equal(r.has, want) {
		r.t.Fatalf("the copy has\n%v\nand %s\n%v", r.has, m.name(), want)
	}
}

package client

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	stellmapv1 "github.com/stellmap/stellmap/api/proto/stellmap/v1"
)

// ids are those of a snapshot's instances.
func ids(s Snapshot) string {
	var out []string
	for _, i := range s.Instances {
		out = append(out, i.ID)
	}
	return strings.Join(out, " ")
}

// told waits until a service is current and has these instances.
func (s *Service) told(tb testing.TB, want string) {
	tb.Helper()
	until(tb, "the instances "+want, func() bool {
		now := s.Snapshot()
		return !now.Stale && ids(now) == want
	})
}

// TestAServiceIsFollowed shows that what is discovered is kept current, with no more than
// one watch, and that a service without instances is known, too.
func TestAServiceIsFollowed(t *testing.T) {
	w := newWorld(t)
	w.put("orders", "a", "")
	w.put("pay", "p", "")
	c := w.client(nil, w.serve())
	orders := must(c.Discover(t.Context(), Query{Service: "orders"}))(t)
	orders.told(t, "a")
	again := must(c.Discover(t.Context(), Query{Service: "orders"}))(t)
	if again != orders {
		t.Fatal("the same service is followed twice")
	}
	w.put("orders", "b", "")
	orders.told(t, "a b")
	w.remove("orders", "a")
	orders.told(t, "b")
	none := must(c.Discover(t.Context(), Query{Service: "nobody"}))(t)
	mustEqual(t, "the instances of nobody", ids(none.Snapshot()), "")

	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	w.put("orders", "c", "")
	orders.told(t, "b c")
	if err := orders.Close(); err != nil {
		t.Fatal(err)
	}
	for range orders.Updates(t.Context()) { // ends with the service
	}
	if _, err := c.Discover(t.Context(), Query{Service: "orders", Selector: "=="}); err == nil || !strings.Contains(err.Error(), "BAD_REQUEST") {
		t.Fatalf("a selector that is none gives %v", err)
	}
}

// TestNobodyVanishesWhileTheServersAreAway shows that a service serves on from memory, stale,
// and that what has changed meanwhile is told as one difference, be it by going on or anew.
func TestNobodyVanishesWhileTheServersAreAway(t *testing.T) {
	for name, anew := range map[string]bool{"going on": false, "told anew": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			for n := range 20 {
				w.put("orders", fmt.Sprintf("o-%02d", n), "")
			}
			s := w.serve()
			c := w.client(nil, s)
			orders := must(c.Discover(t.Context(), Query{Service: "orders"}))(t)
			before := orders.Snapshot()
			s.stop()
			stale := must(orders.Next(t.Context(), before))(t)
			mustEqual(t, "that it is stale", stale.Stale, true)
			mustEqual(t, "what is known", ids(stale), ids(before))
			if err := orders.Err(); err == nil {
				t.Fatal("it does not say why")
			}
			until(t, "the age to grow", func() bool { return orders.Age() > 0 })
			w.remove("orders", "o-07")
			w.put("orders", "o-99", "")
			if anew {
				w.set(func() { w.incarnation = "beef" })
			}
			s.start()
			was := stale
			for latest := range orders.Updates(t.Context()) { // the newest each time, each whole
				for _, change := range Changes(was, latest) {
					if change.After == nil && change.Before.ID != "o-07" {
						t.Fatalf("%s has vanished, which was there all the time", change.Before.ID)
					}
				}
				was = latest
				if !latest.Stale && len(latest.Instances) > 0 && latest.Instances[len(latest.Instances)-1].ID == "o-99" {
					break
				}
			}
			mustEqual(t, "how many instances there are", len(was.Instances)-was.Held, 20)
			mustEqual(t, "how many have changed", len(Changes(before, was))+was.Held, 2)
			mustEqual(t, "that some are held", was.Held > 0, anew) // since it is another cluster
			mustEqual(t, "the age", orders.Age(), 0)
			mustEqual(t, "the error", orders.Err(), nil)
		})
	}
}

// TestWhatARestoredClusterLacksIsHeld shows that those who were registered after a backup
// was made, and come back after it was restored, are never told to be gone, and that the
// others are after a while.
func TestWhatARestoredClusterLacksIsHeld(t *testing.T) {
	w := newWorld(t)
	for _, id := range []string{"a", "back", "dead"} {
		w.put("orders", id, "")
	}
	s := w.serve()
	c := w.client(nil, s)
	orders := must(c.Discover(t.Context(), Query{Service: "orders"}))(t)
	s.stop()
	w.set(func() { w.incarnation = "beef" })
	w.remove("orders", "back")
	w.remove("orders", "dead")
	s.start()
	orders.told(t, "a back dead")
	until(t, "two to be held", func() bool { return orders.Snapshot().Held == 2 })
	w.put("orders", "back", "")
	until(t, "one to be held", func() bool { return orders.Snapshot().Held == 1 })
	mustEqual(t, "the instances", ids(orders.Snapshot()), "a back dead")
	orders.mu.Lock()
	c.timing.hold = 100 * time.Millisecond // not before: the one that comes back may be late
	orders.mu.Unlock()
	for n := 0; orders.Snapshot().Held > 0; n++ { // it ends with whatever is told next
		w.put("orders", "a", fmt.Sprint("z", n))
		pause(t.Context(), time.Millisecond)
	}
	orders.told(t, "a back")
}

// TestAServerWithoutALeaderTellsWhatItKnows shows that what such a one tells is stale.
func TestAServerWithoutALeaderTellsWhatItKnows(t *testing.T) {
	w := newWorld(t)
	w.put("orders", "a", "")
	s := w.serve()
	s.serving(false)
	w.set(func() { w.log.Fault = errors.New("no leader") })
	c := w.client(nil, s)
	orders := must(c.Discover(t.Context(), Query{Service: "orders"}))(t)
	mustEqual(t, "what is known", ids(orders.Snapshot()), "a")
	mustEqual(t, "that it is stale", orders.Snapshot().Stale, true)
	w.set(func() { w.log.Fault = nil })
	s.serving(true)
	orders.told(t, "a")
}

// TestWhatWasDiscoveredOutlivesTheProcess shows that a process that starts while no server
// is there has what the one before knew, and that a damaged file is as good as none.
func TestWhatWasDiscoveredOutlivesTheProcess(t *testing.T) {
	w := newWorld(t)
	w.put("orders", "a", "")
	s, dir := w.serve(), t.TempDir()
	kept := func(c *Config) { c.Dir = dir }
	first := w.client(kept, s)
	orders := must(first.Discover(t.Context(), Query{Service: "orders"}))(t)
	w.put("orders", "b", "")
	orders.told(t, "a b")
	s.stop()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := w.client(kept, s)
	orders = must(second.Discover(t.Context(), Query{Service: "orders"}))(t)
	mustEqual(t, "what is known", ids(orders.Snapshot()), "a b")
	mustEqual(t, "that it is stale", orders.Snapshot().Stale, true)
	w.put("orders", "c", "")
	s.start()
	orders.told(t, "a b c")
	mustEqual(t, "how often all was told", second.counted("discovery.resyncs"), 0) // it goes on from where the file was
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}

	s.stop()
	files, err := filepath.Glob(filepath.Join(dir, "view-*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("there are %v, %v", files, err)
	}
	content := must(os.ReadFile(files[0]))(t)
	content[len(content)/2] ^= 1
	if err := os.WriteFile(files[0], content, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := w.client(kept, s).Discover(ctx, Query{Service: "orders"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("from a damaged file it is discovered with %v", err)
	}
}

// TestAViewIsWholeRevisions shows how what a watch tells in parts becomes a view.
func TestAViewIsWholeRevisions(t *testing.T) {
	instance := func(id string) *stellmapv1.Instance { return &stellmapv1.Instance{InstanceId: id} }
	all := func(partial bool, ids ...string) *stellmapv1.WatchResponse {
		m := &stellmapv1.WatchResponse{Resync: stellmapv1.Resync_RESYNC_COMPACTED, Partial: partial}
		for _, id := range ids {
			m.Instances = append(m.Instances, instance(id))
		}
		return m
	}
	change := func(partial bool, kind stellmapv1.ChangeKind, id string) *stellmapv1.WatchResponse {
		return &stellmapv1.WatchResponse{Partial: partial, Changes: []*stellmapv1.Change{{Kind: kind, Instance: instance(id)}}}
	}
	const created, gone = stellmapv1.ChangeKind_CHANGE_KIND_CREATED, stellmapv1.ChangeKind_CHANGE_KIND_GONE
	v := &view{}
	for n, step := range []struct {
		told      *stellmapv1.WatchResponse
		interrupt bool
		want      string
	}{
		{all(false, "a", "b"), false, "a b"},
		{all(true, "a"), false, "a b"}, // the rest is on its way
		{all(false, "c"), false, "a c"},
		{change(true, gone, "a"), false, "a c"},
		{change(false, created, "d"), false, "c d"},
		{all(true, "x"), true, "c d"}, // the stream ends, and the next begins anew
		{all(true, "y"), false, "c d"},
		{all(false, "z"), false, "y z"},
		{change(true, gone, "y"), true, "y z"},
		{&stellmapv1.WatchResponse{}, false, "y z"},
		{all(false), false, ""},
	} {
		if _, _, err := v.take(step.told); err != nil {
			t.Fatal(err)
		}
		mustEqual(t, fmt.Sprintf("the view after step %d", n), ids(Snapshot{Instances: v.list()}), step.want)
		if step.interrupt {
			v.interrupt()
		}
	}
	v.most = 2
	for _, big := range []*stellmapv1.WatchResponse{all(true, "1", "2", "3"), all(false, "1", "2", "3")} {
		if _, _, err := v.take(big); err == nil {
			t.Fatal("there is no bound")
		}
		mustEqual(t, "what is left of what was too much", len(v.parts), 0)
	}
}

// TestChanges shows what is told of two snapshots.
func TestChanges(t *testing.T) {
	of := func(revision uint64, ids ...string) (s Snapshot) {
		for _, id := range ids {
			s.Instances = append(s.Instances, &Instance{ID: id, Revision: revision})
		}
		return s
	}
	shown := func(changes []Change) string {
		var out []string
		for _, c := range changes {
			switch {
			case c.Before == nil:
				out = append(out, "+"+c.After.ID)
			case c.After == nil:
				out = append(out, "-"+c.Before.ID)
			default:
				out = append(out, "~"+c.After.ID)
			}
		}
		slices.Sort(out)
		return strings.Join(out, " ")
	}
	mustEqual(t, "the changes", shown(Changes(of(1, "a", "b", "d"), of(1, "b", "c", "d", "e"))), "+c +e -a")
	mustEqual(t, "the changes", shown(Changes(of(1, "a"), of(2, "a"))), "~a")
	mustEqual(t, "the changes", shown(Changes(of(1), of(1))), "")
}

// TestAWatchThatIsCutIsStale shows that a service whose watch has ended is stale also while
// its server is well, until there is another watch.
func TestAWatchThatIsCutIsStale(t *testing.T) {
	w := newWorld(t)
	w.put("orders", "a", "")
	cut, refuse := make(chan struct{}), new(atomic.Bool)
	w.options = []grpc.ServerOption{grpc.StreamInterceptor(func(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		if !strings.HasSuffix(info.FullMethod, "/stellmap.v1.RegistryService/Watch") {
			return next(server, stream)
		}
		if refuse.Load() {
			return status.Error(codes.Unavailable, "cut")
		}
		ended := make(chan error, 1)
		go func() { ended <- next(server, stream) }() // ends with the stream, whose end is the return from here
		select {
		case err := <-ended:
			return err
		case <-cut:
			return status.Error(codes.Unavailable, "cut")
		}
	})}
	c := w.client(nil, w.serve())
	orders := must(c.Discover(t.Context(), Query{Service: "orders"}))(t)
	before := orders.Snapshot()
	refuse.Store(true)
	close(cut)
	mustEqual(t, "that it is stale", must(orders.Next(t.Context(), before))(t).Stale, true)
	if err := orders.Err(); err == nil || !strings.Contains(err.Error(), "cut") {
		t.Fatalf("the reason is %v", err)
	}
}

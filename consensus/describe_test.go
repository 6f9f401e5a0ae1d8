package consensus

import (
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"

	peerv1 "github.com/stellmap/stellmap/api/proto/stellmap/peer/v1"
	"github.com/stellmap/stellmap/storage"
)

// Every kind of entry reads as what it is; what this version does not know is an error.
func TestDescribeEntry(t *testing.T) {
	entry := func(e envelope) storage.Entry { return storage.Entry{Data: e.encode()} }
	conf := pb.ConfChange{Type: pb.ConfChangeAddNode.Enum(), NodeId: new(uint64)}
	*conf.NodeId = 7
	for name, one := range map[string]struct {
		entry storage.Entry
		want  string // kind, time, request id, command, value
	}{
		"term":          {storage.Entry{}, "term 0   "},
		"configuration": {storage.Entry{Kind: storage.EntryKind(pb.EntryConfChange), Data: marshal(&conf)}, `configuration 0   {"type":"ConfChangeAddNode","nodeId":"7"}`},
		"joint":         {storage.Entry{Kind: storage.EntryKind(pb.EntryConfChangeV2), Data: marshal(&pb.ConfChangeV2{})}, `configuration 0   {}`},
		"change": {
			storage.Entry{Kind: storage.EntryKind(pb.EntryConfChangeV2), Data: marshal(&pb.ConfChangeV2{
				Changes: []*pb.ConfChangeSingle{single(pb.ConfChangeAddLearnerNode, 4)},
				Context: envelope{kind: kindChange, time: 6, payload: marshal(&peerv1.Member{Id: 4, Grpc: "g:4"})}.encode(),
			})},
			`configuration 6   {"change":{"changes":[{"type":"ConfChangeAddLearnerNode","nodeId":"4"}]},"member":{"id":"4","grpc":"g:4"}}`,
		},
		"settled":      {entry(envelope{kind: kindSettled, payload: marshal(&peerv1.Removals{Settled: 9})}), `settled 0   {"settled":"9"}`},
		"replacement":  {entry(envelope{kind: kindReplacement, payload: marshal(&peerv1.Replacement{Old: 2, New: 4})}), `replacement 0   {"old":"2","new":"4"}`},
		"change alone": {entry(envelope{kind: kindChange, payload: marshal(&peerv1.Member{Id: 4})}), "without one of the configuration"},
		"command":      {entry(envelope{kind: kindCommand, time: 5, requestID: "r-1", payload: []byte("do")}), "command 5 r-1 do "},
		"cluster":      {entry(envelope{kind: kindCluster, payload: marshal(&peerv1.Cluster{Incarnation: "i", FeatureLevel: 1})}), `cluster 0   {"incarnation":"i","featureLevel":1}`},
		"member":       {entry(envelope{kind: kindMember, payload: marshal(&peerv1.Member{Id: 3, Http: "h:1"})}), `member 0   {"id":"3","http":"h:1"}`},
		"not used":     {entry(envelope{kind: 4}), "kind 4"},
		"too short":    {storage.Entry{Data: []byte{1}}, "envelope of 1 bytes"},
		"newer":        {entry(envelope{kind: 200}), "kind 200"},
		"no message":   {entry(envelope{kind: kindMember, payload: []byte{0xff}}), "cannot parse"},
	} {
		d, err := DescribeEntry(one.entry)
		got := strings.Join([]string{d.Kind, jsonText(d.Time), d.RequestID, string(d.Command), string(d.Value)}, " ")
		if err != nil {
			got = err.Error()
		}
		if got != one.want && (err == nil || !strings.Contains(got, one.want)) {
			t.Errorf("%s: got %q, want %q", name, got, one.want)
		}
	}
}

func jsonText(n int64) string {
	text, err := jsonNumber([]byte{0, 0, 0, 0, 0, 0, 0, byte(n)})
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Every kind of entry that the log may hold has a name, so a new kind is not
// forgotten here.
func TestEveryKindOfEntryHasADescription(t *testing.T) {
	for kind := entryKind(0); kind < 255; kind++ {
		e := envelope{kind: kind, payload: make([]byte, 8)}
		if _, err := decodeEnvelope(e.encode()); err == nil {
			if d, err := DescribeEntry(storage.Entry{Data: e.encode()}); d.Kind == "" && err == nil {
				t.Errorf("kind %d has no name", kind)
			}
		}
	}
}

// All that a cluster has under its own keys is described, and each kind has a
// rule for a restore; other keys are somebody else's.
func TestEveryKeyHasADescription(t *testing.T) {
	inTunedBubble(t, 3, func(c *Config) { c.CheckEvery = time.Second }, func(t *testing.T, c *cluster) {
		for range 35 {
			c.tick(c.ids())
		}
		leader := c.nodes[c.nodes[1].Status().LeaderID]
		if _, err := leader.propose(c, "request", "a"); err != nil {
			t.Fatal(err)
		}
		for _, m := range []MemberChange{{Kind: AddLearner, Member: Member{ID: 5}}, {Kind: Remove, ID: 5}, {Kind: Replace, ID: 1, By: 4}} {
			if err := leader.change(c, m); err != nil {
				t.Fatal(err)
			}
		}
		seen := make(map[string]bool)
		for _, text := range leader.pairs(t) {
			kind, _, _ := strings.Cut(text, " ")
			seen[kind] = true
		}
		for _, k := range keyKinds {
			if !seen[k.name] {
				t.Errorf("the cluster has no %s", k.name)
			}
			if k.restore == 0 {
				t.Errorf("%s has no rule for a restore", k.name)
			}
		}
	})
	if _, ok, err := DescribeKey([]byte("/services/a/b"), nil); ok || err != nil {
		t.Errorf("a service is described: %v", err)
	}
	if _, ok, err := DescribeKey([]byte(timeKey), []byte("short")); !ok || err == nil {
		t.Errorf("a damaged value is described: %v", ok)
	}
	if _, ok, _ := DescribeKey([]byte(timeKey+"s"), nil); ok {
		t.Error("a key that only begins like one is described")
	}
}

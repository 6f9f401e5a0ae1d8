package httpapi

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stellmap/stellmap/registry"
)

// TestEncodeAgreesWithJSON shows that a text is escaped as encoding/json does it, byte for byte.
func TestEncodeAgreesWithJSON(t *testing.T) {
	texts := []string{"", "plain", `"\/`, "<a href='x'>&amp;</a>", "\u2028\u2029", "你好 🙂", "\xff\xfe", "a\xe4\xbd", "\x7f", "\ufffd"}
	for c := range 256 {
		texts = append(texts, "a"+string([]byte{byte(c)})+"b")
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 2_000 {
		var text strings.Builder
		for range random.IntN(12) {
			if random.IntN(4) == 0 {
				text.WriteByte(byte(random.IntN(256)))
			} else {
				text.WriteRune(rune(random.IntN(0x3000)))
			}
		}
		texts = append(texts, text.String())
	}
	for _, text := range texts {
		want, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(appendText(nil, text)); got != string(want) && !sameReplacement(got, string(want)) {
			t.Fatalf("%q becomes %s, want %s", text, got, want)
		}
	}
}

// sameReplacement holds for texts that differ in how U+FFFD, which stands for a broken byte, is written.
func sameReplacement(got, want string) bool {
	return strings.ReplaceAll(got, `\ufffd`, "\ufffd") == strings.ReplaceAll(want, `\ufffd`, "\ufffd")
}

// TestEveryFieldOfAnInstanceIsShown shows that nothing is lost or misplaced on the way out.
func TestEveryFieldOfAnInstanceIsShown(t *testing.T) {
	i := &registry.Instance{
		Origin: &registry.Origin{Namespace: "n", Service: "a.b.c.d.e", Group: "g", Zone: "z", Region: "r", Version: "v"}, ID: "i",
		Labels: registry.PairsOf(map[string]string{"l": "1", "k": ""}), Metadata: registry.PairsOf(map[string]string{"m": "2"}),
		Endpoints: []registry.Endpoint{{Name: "e", Protocol: "http", Host: "::1", Port: 1, Path: "/p", Weight: 2}, {Name: "f", Protocol: "tcp", Host: "h", Port: 65535, Weight: 1}},
		LeaseTTL:  90 * time.Second, RegisteredAt: 1_790_000_000_999, LastHeartbeat: 1_790_000_001_000,
		Status: registry.StatusExpired, ExpiredAt: 1_790_000_002_005, Revision: 1 << 52, Counter: 3, Lease: 9,
		Health: &registry.Health{Checks: []registry.Check{
			{Name: "c", Kind: "http", Endpoint: "e", Path: "/", Service: "s", Send: "x", Expect: "y", ServerName: "n", TLSSkipVerify: true, IntervalSeconds: 1, TimeoutSeconds: 2, Rise: 3, Fall: 4, Initial: "passing"},
			{Name: "d", Kind: "tcp", Endpoint: "f", Initial: "critical"},
		}, Conditions: []registry.Condition{{Source: registry.SourceCheck, Name: "web", Status: registry.StatusCritical, Since: 1_790_000_001_000, Until: 1_790_000_002_005, Reason: "r", By: "2", Held: 1_790_000_002_005}}},
	}
	e := &encoder{}
	writeFields(e, &shownInstance{Instance: i, heardAt: i.LastHeartbeat, withheld: []Withheld{{Endpoint: "e", Reason: "r1"}, {Instance: "i", Reason: "r2"}, {Instance: "j", Reason: "r3"}, {Endpoint: "x", Reason: "r4"}}}, instanceFields)
	var got map[string]any
	if err := json.Unmarshal(e.b, &got); err != nil {
		t.Fatalf("%v: %s", err, e.b)
	}
	want := map[string]any{
		"namespace": "n", "service": "a.b.c.d.e", "instanceId": "i", "group": "g", "zone": "z", "region": "r", "version": "v",
		"organization": "a", "businessDomain": "b", "capabilityDomain": "c", "application": "d", "role": "e",
		"labels": map[string]any{"l": "1", "k": ""}, "metadata": map[string]any{"m": "2"},
		"endpoints": []any{
			map[string]any{"name": "e", "protocol": "http", "host": "::1", "port": 1., "path": "/p", "weight": 2.},
			map[string]any{"name": "f", "protocol": "tcp", "host": "h", "port": 65535., "weight": 1.},
		},
		"checks": []any{
			map[string]any{
				"name": "c", "kind": "http", "endpoint": "e", "path": "/", "service": "s", "send": "x", "expect": "y", "serverName": "n", "tlsSkipVerify": true,
				"intervalSeconds": 1., "timeoutSeconds": 2., "rise": 3., "fall": 4., "initial": "passing",
			},
			map[string]any{"name": "d", "kind": "tcp", "endpoint": "f", "intervalSeconds": 0., "timeoutSeconds": 0., "rise": 0., "fall": 0., "initial": "critical"},
		},
		"leaseTtlSeconds": 90., "registeredAt": "2026-09-21T14:13:20.999Z", "lastHeartbeatAt": "2026-09-21T14:13:21.000Z",
		"status": "expired", "statusSince": "2026-09-21T14:13:22.005Z",
		"conditions": []any{map[string]any{
			"source": "check", "name": "web", "status": "critical", "since": "2026-09-21T14:13:21.000Z", "until": "2026-09-21T14:13:22.005Z", "reason": "r", "by": "2", "heldUntil": "2026-09-21T14:13:22.005Z",
		}},
		"expiredAt": "2026-09-21T14:13:22.005Z", "revision": float64(1 << 52), "counter": 3.,
		"withheld": []any{map[string]any{"endpoint": "e", "reason": "r1"}, map[string]any{"reason": "r2"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("the instance differs (-want +got):\n%s", diff)
	}
}

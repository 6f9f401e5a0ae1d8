package storage

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
)

// PrefixEnd is the least key that is after every key with the prefix.
func TestPrefixEnd(t *testing.T) {
	for _, c := range []struct{ prefix, want string }{
		{"a", "b"}, {"a/", "a0"}, {"a\xff", "b"}, {"a\xff\xff", "b"}, {"a\xfe", "a\xff"}, {"\xff", "none"}, {"\xff\xff", "none"}, {"", "none"},
	} {
		prefix := []byte(c.prefix)
		got := "none"
		if end := PrefixEnd(prefix); end != nil {
			got = string(end)
		}
		if got != c.want || string(prefix) != c.prefix {
			t.Errorf("after %q comes %q, want %q; the prefix is now %q", c.prefix, got, c.want, prefix)
		}
	}
}

// A scan over a namespace, or over a service, finds the keys of just that, with
// whatever names (but without "/", which the registry refuses) as neighbours.
func TestNamesNeverReachIntoEachOther(t *testing.T) {
	alphabet := []byte{0, '!', '.', '-', '0', 'a', 'b', 0x7f, 0xff}
	forSeeds(t, 2000, func(t *testing.T, random *rand.Rand) {
		name := func() string {
			b := make([]byte, 1+random.IntN(3))
			for i := range b {
				b[i] = alphabet[random.IntN(len(alphabet))]
			}
			return string(b)
		}
		ns, svc, id, otherNS, otherSvc := name(), name(), name(), name(), name()
		for _, c := range []struct {
			prefix, key []byte
			want        bool
		}{
			{InstanceKey(ns, svc, ""), InstanceKey(otherNS, otherSvc, id), ns == otherNS && svc == otherSvc},
			{[]byte(InstancePrefix + ns + "/"), InstanceKey(otherNS, otherSvc, id), ns == otherNS},
			{ServiceKey(ns, ""), ServiceKey(otherNS, otherSvc), ns == otherNS},
			{PolicyKey(ns, ""), PolicyKey(otherNS, otherSvc), ns == otherNS},
			{[]byte(NamespacePrefix), NamespaceKey(ns), true},
			{[]byte(NamespacePrefix), PolicyKey(ns, svc), false},
			{[]byte(InstancePrefix), ServiceKey(ns, svc), false},
			{RoleKey(""), RoleKey(ns), true},
			{RoleKey(""), BindingKey(ns), false},
			{BindingKey(""), AccessTokenKey(ns), false},
			{[]byte(ServicePrefix), InstanceKey(ns, svc, id), false},
			{[]byte(MetaPrefix), InstanceKey(ns, svc, id), false},
			{[]byte(MetaPrefix), ServiceKey(ns, svc), false},
			{[]byte(MetaPrefix), []byte(appliedKey), true},
		} {
			within := bytes.Compare(c.prefix, c.key) <= 0 && bytes.Compare(c.key, PrefixEnd(c.prefix)) < 0
			if within != c.want {
				t.Fatalf("%q is within %q: %v", c.key, c.prefix, within)
			}
		}
	})
	if got, want := fmt.Sprintf("%s %s", InstanceKey("ns", "svc", "id"), ServiceKey("ns", "svc")), "/registry/ns/svc/id /services/ns/svc"; got != want {
		t.Errorf("keys are %s, want %s", got, want)
	}
}

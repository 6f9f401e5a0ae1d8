package registry

import (
	"testing"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
)

// It is decided of every kind of command whether it grows, and it stays as it
// is: of a kind that is new, this test asks for the decision.
func TestItIsDecidedWhichCommandsGrow(t *testing.T) {
	want := map[string]bool{"register": true, "deregister": false, "renew": false, "expire": false, "reap": false, "set_conditions": false, "checkpoint": false, "grant_lease": true, "revoke_lease": false, "edit_policy": true, "edit_upstreams": true, "edit_namespace": true, "protect": false, "judge_reports": false, "import_changes": true, "control_region": false,
		"edit_role": false, "edit_binding": false, "grant_token": false, "revoke_token": false, "age_region": false}
	kinds := (&recordv1.Command{}).ProtoReflect().Descriptor().Oneofs().ByName("kind").Fields()
	for i := range kinds.Len() {
		kind := kinds.Get(i)
		var c recordv1.Command
		m := c.ProtoReflect()
		m.Set(kind, m.NewField(kind))
		grows, decided := growing(&c)
		if expected, known := want[string(kind.Name())]; !decided || !known || grows != expected {
			t.Errorf("%s: grows %v, decided %v, want %v (known to the test: %v)", kind.Name(), grows, decided, expected, known)
		}
		if Grows(encode(&c)) != grows {
			t.Errorf("%s: as bytes it is another", kind.Name())
		}
	}
	if kinds.Len() != len(want) {
		t.Errorf("%d kinds, want %d", kinds.Len(), len(want))
	}
}

// The commands as the registry makes them, and what no version has written.
func TestGrows(t *testing.T) {
	key := InstanceKey{Namespace: "prod", Service: "orders", ID: "a"}
	normal, err := good().normalize()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		command []byte
		want    bool
	}{
		"register":       {registerCommand(normal), true},
		"deregister":     {deregisterCommand(key, Holder{}), false},
		"grant a lease":  {encode(&recordv1.Command{Format: formatMax, Kind: &recordv1.Command_GrantLease{GrantLease: &recordv1.GrantLease{Id: "l"}}}), true},
		"revoke a lease": {encode(&recordv1.Command{Format: formatMax, Kind: &recordv1.Command_RevokeLease{RevokeLease: &recordv1.RevokeLease{Id: "l"}}}), false},
		"renew":          {renewCommand(&pendingRenewal{key: key, ttlMs: 30_000}), false},
		"expire":         {expireCommand(3, []dueLease{{key: key}}), false},
		"reap":           {reapCommand([]ServiceKey{key.ServiceKey()}), false},
		"nothing":        {nil, true},
		"no command":     {[]byte("\xff\xff\xff"), true},
		"a later kind":   {[]byte{0xa2, 0x06, 0x00}, true}, // field 100, of which this version knows nothing
		"without a kind": {encode(&recordv1.Command{Format: formatMax}), true},
	} {
		if have := Grows(c.command); have != c.want {
			t.Errorf("%s: grows %v, want %v", name, have, c.want)
		}
	}
}

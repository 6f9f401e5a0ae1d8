package registry

import (
	"context"
	"testing"
)

// TestAReplicaIsOfTheRegionsOwn shows what is told of what selection: nothing of an
// instance that is another region's, whatever is selected.
func TestAReplicaIsOfTheRegionsOwn(t *testing.T) {
	m := newMember(t, newManualClock())
	event := func(region, namespace, service string) *Event {
		i := &Instance{Origin: &Origin{Namespace: namespace, Service: service, Region: region}, ID: "a"}
		return &Event{Kind: EventInstanceDelete, Service: i.ServiceKey(), Previous: i}
	}
	put := func(region string) *Event {
		i := &Instance{Origin: &Origin{Namespace: "prod", Service: "pay", Region: region}, ID: "a"}
		return &Event{Kind: EventInstancePut, Service: i.ServiceKey(), Instance: i}
	}
	copied := put("here")
	copied.Instance.Imported = &Imported{Cluster: 200}
	some := []Selected{{Namespace: "prod", Services: []string{"orders"}}, {Namespace: "test"}}
	for name, c := range map[string]struct {
		selected []Selected
		event    *Event
		want     bool
	}{
		"its own":                      {nil, event("here", "prod", "pay"), true},
		"another region's":             {nil, event("there", "prod", "pay"), false},
		"a copy in its own name":       {nil, copied, false},
		"another region's put":         {nil, put("there"), false},
		"its own put":                  {nil, put("here"), true},
		"a service that is selected":   {some, event("here", "prod", "orders"), true},
		"the same of another region":   {some, event("there", "prod", "orders"), false},
		"one that is not selected":     {some, event("here", "prod", "pay"), false},
		"any of a selected namespace":  {some, event("here", "test", "pay"), true},
		"what is not of one instance":  {nil, &Event{Kind: EventServicePut, Service: ServiceKey{"prod", "orders"}}, false},
		"one of a namespace like that": {some, event("here", "test2", "pay"), false},
	} {
		p, err := m.registry.Replicate(context.Background(), c.selected, ReplicaStart{})
		if err != nil {
			t.Fatal(err)
		}
		mustEqual(t, "whether "+name+" is told", p.takes(c.event), c.want)
	}
}

// TestSelectionsOfTheSame shows that a cursor is good for the same services, in whatever
// words they are selected, and for no others.
func TestSelectionsOfTheSame(t *testing.T) {
	digest := func(selected ...Selected) string {
		s, err := selectionOf(selected)
		if err != nil {
			t.Fatal(err)
		}
		return s.digest()
	}
	orders := digest(Selected{"prod", []string{"orders", "pay"}}, Selected{"test", nil})
	mustEqual(t, "another order", digest(Selected{"test", []string{"x"}}, Selected{" test ", nil}, Selected{"prod", []string{"pay", "orders", "pay"}}), orders)
	for name, other := range map[string]string{
		"everything":  digest(),
		"a namespace": digest(Selected{"prod", nil}, Selected{"test", nil}),
		"one less":    digest(Selected{"prod", []string{"orders"}}, Selected{"test", nil}),
	} {
		if other == orders {
			t.Errorf("the digest of %s is the same", name)
		}
	}
}

package registry

import (
	"context"
	"fmt"
	"strings"
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
		s, err := Select(selected)
		if err != nil {
			t.Fatal(err)
		}
		return s.digest()
	}
	orders := digest(Selected{Namespace: "prod", Services: []string{"orders", "pay"}}, Selected{Namespace: "test"})
	mustEqual(t, "another order", digest(Selected{Namespace: "test", Services: []string{"x"}}, Selected{Namespace: " test "}, Selected{Namespace: "prod", Services: []string{"pay", "orders", "pay"}}), orders)
	labelled := digest(Selected{Namespace: "prod", Labels: "a in (y, x), b"})
	mustEqual(t, "labels in other words", digest(Selected{Namespace: "prod", Labels: " b,a in (x,y,x),b"}), labelled)
	if digest(Selected{Namespace: "prod", Labels: "a notin (x, y), b"}) == labelled {
		t.Error("the digest of other labels is the same")
	}
	for name, other := range map[string]string{
		"everything":  digest(),
		"a namespace": digest(Selected{Namespace: "prod"}, Selected{Namespace: "test"}),
		"a beginning": digest(Selected{Namespace: "prod", Services: []string{"orders", "pay*"}}, Selected{Namespace: "test"}),
		"some labels": digest(Selected{Namespace: "prod", Services: []string{"orders", "pay"}, Labels: "a"}, Selected{Namespace: "test"}),
		"all of them": digest(Selected{Namespace: "*", Services: []string{"orders", "pay"}}, Selected{Namespace: "test"}),
		"one less":    digest(Selected{Namespace: "prod", Services: []string{"orders"}}, Selected{Namespace: "test"}),
	} {
		if other == orders {
			t.Errorf("the digest of %s is the same", name)
		}
	}
}

// TestASelectionHasSoManyNames shows what counts: a service, or a namespace without any.
func TestASelectionHasSoManyNames(t *testing.T) {
	services := make([]string, selectionMax-1)
	for n := range services {
		services[n] = fmt.Sprint("s", n)
	}
	most := []Selected{{Namespace: "prod", Services: services}, {Namespace: "test"}}
	if _, err := Select(most); err != nil {
		t.Errorf("%d names are refused: %v", selectionMax, err)
	}
	if _, err := Select(append(most, Selected{Namespace: "other"})); err == nil {
		t.Errorf("%d names are taken", selectionMax+1)
	}
}

// TestWhatASelectionCovers shows what the words of a selection mean.
func TestWhatASelectionCovers(t *testing.T) {
	for _, c := range []struct {
		text, service, labels string
		want                  bool
	}{
		{"prod/orders", "prod/orders", "", true},
		{"prod/orders", "prod/orders2", "", false},
		{"prod/orders", "test/orders", "", false},
		{"prod/*", "prod/orders", "", true},
		{"prod/*", "prod2/orders", "", false},
		{"*/orders", "test/orders", "", true},
		{"*/orders", "test/orders.eu", "", false},
		{"prod/pay-*", "prod/pay-cards", "", true},
		{"prod/pay-*", "prod/pay", "", false},
		{"*/pay* tier=gold", "test/pay", "gold", true},
		{"*/pay* tier=gold", "test/pay", "tin", false},
		{"prod/*  tier!=gold", "prod/pay", "", true},
		{"prod/* tier,tier notin (tin, gold)", "prod/pay", "gold", false},
		{"prod/* tier,tier notin (tin)", "prod/pay", "gold", true},
	} {
		one, err := ParseSelected(c.text)
		if err != nil {
			t.Fatal(err)
		}
		s, err := Select([]Selected{one, {Namespace: "other"}})
		if err != nil {
			t.Fatal(err)
		}
		namespace, service, _ := strings.Cut(c.service, "/")
		i := &Instance{Origin: &Origin{Namespace: namespace, Service: service}}
		if c.labels != "" {
			i.Labels = Pairs{{"tier", c.labels}}
		}
		mustEqual(t, fmt.Sprintf("whether %q covers one of %s with %q", c.text, c.service, c.labels), s.covers(i), c.want)
		if c.want {
			mustEqual(t, fmt.Sprintf("whether %q may have one of %s", c.text, c.service), s.mayHave(i.ServiceKey()), true)
		}
	}
}

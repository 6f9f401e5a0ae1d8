package registry

import (
	"maps"
	"testing"
)

// TestWhatReadersAskOfAnInstance shows the small questions: an endpoint by name,
// its address if it has one, an instance by id, labels as a map.
func TestWhatReadersAskOfAnInstance(t *testing.T) {
	i := &Instance{
		ID: "a", Labels: PairsOf(map[string]string{"b": "2", "a": "1"}),
		Endpoints: []Endpoint{{Name: "http", Host: "2001:db8::1", Port: 80}, {Name: "db", Host: "db.example.com", Port: 5432}},
	}
	web, ok := i.Endpoint("http")
	address, literal := web.Address()
	mustEqual(t, "whether there is http", ok && literal, true)
	mustEqual(t, "its address", address.String(), "[2001:db8::1]:80")
	db, _ := i.Endpoint("db")
	_, literal = db.Address()
	mustEqual(t, "whether a host name is an address", literal, false)
	_, ok = i.Endpoint("none")
	mustEqual(t, "whether there is another endpoint", ok, false)

	mustEqualSlices(t, "the labels", i.Labels, Pairs{{"a", "1"}, {"b", "2"}})
	mustEqual(t, "whether the map is equal", maps.Equal(i.Labels.Map(), map[string]string{"a": "1", "b": "2"}), true)
	mustEqual(t, "whether no labels are no map", Pairs(nil).Map() == nil && PairsOf(nil) == nil, true)

	s := &Service{Instances: []*Instance{i}}
	found, ok := s.Instance("a")
	mustEqual(t, "whether a is found", ok && found == i, true)
	_, ok = s.Instance("b")
	mustEqual(t, "whether b is found", ok, false)
}

// TestNamesOfStatesAndEvents shows the words that JSON, logs and metrics use.
func TestNamesOfStatesAndEvents(t *testing.T) {
	mustEqualSlices(t, "the states", []string{StatusPassing.String(), StatusExpired.String(), Status(99).String()}, []string{"passing", "expired", "unknown"})
	mustEqual(t, "an unknown kind of event", EventKind(99).String(), "unknown")
	mustEqual(t, "whether callers may be sent to an expired one", StatusExpired.Routable(), false)
}

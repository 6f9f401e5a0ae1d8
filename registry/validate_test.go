package registry

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/stellmap/stellmap/internal/corpus"
)

// good is a registration that nothing is wrong with.
func good() Registration {
	r := reg("prod", "orders", "10.0.0.1:8080", "10.0.0.1", 8080)
	r.Labels = map[string]string{"track": "canary"}
	return r
}

// TestRegisterRefusesBadInput shows that each bad field is named by its JSON
// path, together with what is allowed, and that nothing changes.
func TestRegisterRefusesBadInput(t *testing.T) {
	long := strings.Repeat("a", nameBytesMax+1)
	five := Levels{"acme", "shop", "checkout", "cart", "api"}
	cases := map[string]struct {
		spoil  func(r *Registration)
		fields []string
		says   string
	}{
		"no namespace":                  {func(r *Registration) { r.Namespace = " " }, []string{"namespace"}, "is missing"},
		"namespace with a dot":          {func(r *Registration) { r.Namespace = "a.b" }, []string{"namespace"}, "has a dot"},
		"namespace mesh":                {func(r *Registration) { r.Namespace = "mesh" }, []string{"namespace"}, "reserved"},
		"namespace Mesh":                {func(r *Registration) { r.Namespace = "Mesh" }, []string{"namespace"}, `"Mesh" is reserved`},
		"namespace too long":            {func(r *Registration) { r.Namespace = long }, []string{"namespace"}, "at most 253 bytes"},
		"namespace with a slash":        {func(r *Registration) { r.Namespace = "a/b" }, []string{"namespace"}, `"a/b" is not allowed`},
		"namespace with a star":         {func(r *Registration) { r.Namespace = "*" }, []string{"namespace"}, "not allowed"},
		"namespace with a control":      {func(r *Registration) { r.Namespace = "a\x00b" }, []string{"namespace"}, `"a\x00b"`},
		"no service":                    {func(r *Registration) { r.Service = "" }, []string{"service"}, "or all five levels"},
		"service too long":              {func(r *Registration) { r.Service = long }, []string{"service"}, "at most 253 bytes"},
		"service with a slash":          {func(r *Registration) { r.Service = "a/b" }, []string{"service"}, "not allowed"},
		"service with a star":           {func(r *Registration) { r.Service = "a*" }, []string{"service"}, "not allowed"},
		"service with a control":        {func(r *Registration) { r.Service = "a\nb" }, []string{"service"}, "not allowed"},
		"service beginning with a dot":  {func(r *Registration) { r.Service = ".a" }, []string{"service"}, "beginning and ending"},
		"half of the levels":            {func(r *Registration) { r.Service = ""; r.Levels = Levels{Organization: "acme", BusinessDomain: "shop"} }, []string{"capabilityDomain", "application", "role"}, "all five levels"},
		"one level beside a plain name": {func(r *Registration) { r.Levels = Levels{Role: "api"} }, []string{"organization", "businessDomain", "capabilityDomain", "application"}, "or none"},
		"service contradicts levels":    {func(r *Registration) { r.Service = "acme.shop.checkout.cart.web"; r.Levels = five }, []string{"service"}, `"acme.shop.checkout.cart.api"`},
		"level with a dot":              {func(r *Registration) { r.Service = ""; r.Levels = five; r.Levels.Role = "a.b" }, []string{"role"}, "not allowed"},
		"levels too long together":      {func(r *Registration) { r.Service = ""; r.Levels = five; r.Levels.Role = long[:250] }, []string{"service"}, "at most 253 bytes"},
		"no instance id":                {func(r *Registration) { r.ID = "\t" }, []string{"instanceId"}, "is missing"},
		"instance id with a slash":      {func(r *Registration) { r.ID = "a/b" }, []string{"instanceId"}, "without '/'"},
		"instance id with a control":    {func(r *Registration) { r.ID = "a\x7fb" }, []string{"instanceId"}, "printable"},
		"instance id that is not UTF-8": {func(r *Registration) { r.ID = "a\xffb" }, []string{"instanceId"}, "printable"},
		"instance id too long":          {func(r *Registration) { r.ID = long }, []string{"instanceId"}, "(254 bytes)"},
		"zone with a control":           {func(r *Registration) { r.Zone = "a\rb" }, []string{"zone"}, "printable"},
		"group too long":                {func(r *Registration) { r.Group = long }, []string{"group"}, "at most 253 bytes"},
		"version with a star":           {func(r *Registration) { r.Version = "1.*" }, []string{"version"}, "not allowed"},
		"zone with a star":              {func(r *Registration) { r.Zone = "*" }, []string{"zone"}, "without '/' and '*'"},
		"no endpoint":                   {func(r *Registration) { r.Endpoints = nil }, []string{"endpoints"}, "1 to 32"},
		"too many endpoints":            {func(r *Registration) { r.Endpoints = make([]Endpoint, 33) }, []string{"endpoints"}, "at most 32"},
		"two endpoints of one name":     {func(r *Registration) { r.Endpoints = append(r.Endpoints, r.Endpoints[0]) }, []string{"endpoints[1].name"}, "already the name of endpoints[0]"},
		"two endpoints of one protocol": {func(r *Registration) {
			r.Endpoints = append(r.Endpoints, Endpoint{Protocol: "HTTP", Host: "h", Port: 1})
		}, []string{"endpoints[1].name"}, "already the name"},
		"endpoint name with a tilde":        {func(r *Registration) { r.Endpoints[0].Name = "a~b" }, []string{"endpoints[0].name"}, "not allowed"},
		"no protocol":                       {func(r *Registration) { r.Endpoints[0].Protocol = "" }, []string{"endpoints[0].protocol"}, "is missing"},
		"protocol with a slash":             {func(r *Registration) { r.Endpoints[0].Protocol = "http/2"; r.Endpoints[0].Name = "n" }, []string{"endpoints[0].protocol"}, "not allowed"},
		"no host":                           {func(r *Registration) { r.Endpoints[0].Host = "" }, []string{"endpoints[0].host"}, "is missing"},
		"host with a port":                  {func(r *Registration) { r.Endpoints[0].Host = "10.0.0.1:80" }, []string{"endpoints[0].host"}, "neither an IP address nor a host name"},
		"host with a scheme":                {func(r *Registration) { r.Endpoints[0].Host = "http://a" }, []string{"endpoints[0].host"}, "neither"},
		"host that is half an address":      {func(r *Registration) { r.Endpoints[0].Host = "10.0.0.256" }, []string{"endpoints[0].host"}, "like an IPv4 address"},
		"host that is a listener's":         {func(r *Registration) { r.Endpoints[0].Host = "0.0.0.0" }, []string{"endpoints[0].host"}, "where to listen"},
		"host that is a listener's, mapped": {func(r *Registration) { r.Endpoints[0].Host = "::ffff:0.0.0.0" }, []string{"endpoints[0].host"}, "where to listen"},
		"host in a zone":                    {func(r *Registration) { r.Endpoints[0].Host = "fe80::1%eth0" }, []string{"endpoints[0].host"}, "has a zone"},
		"host that is multicast":            {func(r *Registration) { r.Endpoints[0].Host = "224.0.0.1" }, []string{"endpoints[0].host"}, "multicast"},
		"port 0":                            {func(r *Registration) { r.Endpoints[0].Port = 0 }, []string{"endpoints[0].port"}, "0 is not a port: 1 to 65535"},
		"port 70000":                        {func(r *Registration) { r.Endpoints[0].Port = 70000 }, []string{"endpoints[0].port"}, "70000 is not a port"},
		"negative weight":                   {func(r *Registration) { r.Endpoints[0].Weight = -1 }, []string{"endpoints[0].weight"}, "-1 is not a weight"},
		"weight too large":                  {func(r *Registration) { r.Endpoints[0].Weight = 65536 }, []string{"endpoints[0].weight"}, "1 to 65535"},
		"path with a control":               {func(r *Registration) { r.Endpoints[0].Path = "/a\nb" }, []string{"endpoints[0].path"}, "printable"},
		"negative TTL":                      {func(r *Registration) { r.LeaseTTLSeconds = -1 }, []string{"leaseTtlSeconds"}, "-1 is negative"},
		"TTL over seven days":               {func(r *Registration) { r.LeaseTTLSeconds = 604801 }, []string{"leaseTtlSeconds"}, "more than seven days"},
		"TTL that would overflow":           {func(r *Registration) { r.LeaseTTLSeconds = 1 << 62 }, []string{"leaseTtlSeconds"}, "more than seven days"},
		"65 labels":                         {func(r *Registration) { r.Labels = manyPairs(65, 1) }, []string{"labels"}, "has 65 keys: at most 64"},
		"too much metadata":                 {func(r *Registration) { r.Metadata = manyPairs(4, 5000) }, []string{"metadata"}, "at most 16384"},
		"label key with a control":          {func(r *Registration) { r.Labels = map[string]string{"a\x01": "b"} }, []string{`labels["a\x01"]`}, "printable"},
		"label value that is not UTF-8":     {func(r *Registration) { r.Labels = map[string]string{"a": "\xff"} }, []string{`labels["a"]`}, "UTF-8"},
		"labels equal but for spaces":       {func(r *Registration) { r.Labels = map[string]string{"a": "1", " a": "2"} }, []string{`labels["a"]`}, "given twice"},
		"everything wrong is said at once":  {func(r *Registration) { *r = Registration{Endpoints: []Endpoint{{Port: -1}}} }, []string{"namespace", "service", "instanceId", "endpoints[0].protocol", "endpoints[0].host", "endpoints[0].port"}, "is missing"},
	}
	m := newMember(t, newManualClock())
	for _, name := range slices.Sorted(maps.Keys(cases)) {
		t.Run(name, func(t *testing.T) {
			c := cases[name]
			r := good()
			c.spoil(&r)
			_, err := m.registry.Register(context.Background(), "", r)
			mustBeInvalid(t, err, c.fields, c.says)
		})
	}
	mustEqual(t, "the number of proposals", m.proposed, 0)
}

func mustBeInvalid(t *testing.T, err error, fields []string, says string) {
	t.Helper()
	var invalid *ValidationError
	if !errors.As(err, &invalid) {
		t.Fatalf("got error %v, want a ValidationError", err)
	}
	var got []string
	for _, p := range invalid.Problems {
		got = append(got, p.Field)
	}
	mustEqualSlices(t, "the list of fields", got, fields)
	if !strings.Contains(err.Error(), says) {
		t.Fatalf("error %q does not say %q", err, says)
	}
}

func manyPairs(n, size int) map[string]string {
	pairs := make(map[string]string)
	for i := range n {
		pairs["k"+strconv.Itoa(i)] = strings.Repeat("v", size)
	}
	return pairs
}

// TestRegistrationNormalForm shows what is trimmed, lowered, completed and derived.
func TestRegistrationNormalForm(t *testing.T) {
	got, err := Registration{
		Namespace: " prod ", Service: " acme.shop.checkout.cart.api ", ID: " a#b*1 ", Zone: " z1 ",
		Labels: map[string]string{" track ": " canary ", "": "dropped", " ": "too"},
		Endpoints: []Endpoint{
			{Protocol: " HTTP ", Host: " [::FFFF:10.1.0.7] ", Port: 8080},
			{Name: "admin", Protocol: "tcp", Host: "Node-7.Example.Com.", Port: 9, Weight: 7, Path: " /v1 "},
		},
	}.normalize()
	if err != nil {
		t.Fatal(err)
	}
	want := Registration{
		Namespace: "prod", Service: "acme.shop.checkout.cart.api", ID: "a#b*1", Zone: "z1",
		Levels: Levels{"acme", "shop", "checkout", "cart", "api"},
		Labels: map[string]string{"track": "canary"},
		Endpoints: []Endpoint{
			{Name: "http", Protocol: "http", Host: "10.1.0.7", Port: 8080, Weight: 100},
			{Name: "admin", Protocol: "tcp", Host: "node-7.example.com", Port: 9, Weight: 7, Path: "/v1"},
		},
		LeaseTTLSeconds: 30,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("normal form (-want +got):\n%s", diff)
	}
	again, err := got.normalize()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got, again); diff != "" {
		t.Fatalf("the normal form is not its own normal form:\n%s", diff)
	}
}

// TestServiceNames shows how plain and five-level names become one another.
func TestServiceNames(t *testing.T) {
	five := Levels{"acme", "shop", "checkout", "cart", "api"}
	cases := map[string]struct {
		service string
		levels  Levels
		want    string
		has     Levels
	}{
		"plain":                      {"order-service", Levels{}, "order-service", Levels{}},
		"plain with four dots, hole": {"a..b.c.d", Levels{}, "a..b.c.d", Levels{}},
		"four parts":                 {"a.b.c.d", Levels{}, "a.b.c.d", Levels{}},
		"six parts":                  {"a.b.c.d.e.f", Levels{}, "a.b.c.d.e.f", Levels{}},
		"five parts":                 {"acme.shop.checkout.cart.api", Levels{}, "acme.shop.checkout.cart.api", five},
		"five parts, odd ends":       {"acme.-.cart_.app.api", Levels{}, "acme.-.cart_.app.api", Levels{"acme", "-", "cart_", "app", "api"}},
		"both, odd ends":             {"acme.-.cart_.app.api", Levels{"acme", "-", "cart_", "app", "api"}, "acme.-.cart_.app.api", Levels{"acme", "-", "cart_", "app", "api"}},
		"levels only":                {"", five, "acme.shop.checkout.cart.api", five},
		"both":                       {"acme.shop.checkout.cart.api", five, "acme.shop.checkout.cart.api", five},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var bad problems
			service, levels := normalizeService(c.service, c.levels, &bad)
			if err := bad.err(); err != nil {
				t.Fatal(err)
			}
			mustEqual(t, "the service", service, c.want)
			mustEqual(t, "the levels", levels, c.has)
		})
	}
}

// TestHeartbeatAndDeregisterRefuseBadInput shows that they check names and TTL as register does.
func TestHeartbeatAndDeregisterRefuseBadInput(t *testing.T) {
	m := newMember(t, newManualClock())
	_, err := m.registry.Heartbeat(context.Background(), InstanceRef{Namespace: "a.b", ID: "x/y"}, -5)
	mustBeInvalid(t, err, []string{"namespace", "service", "instanceId", "leaseTtlSeconds"}, "-5 is negative")
	_, err = m.registry.Deregister(context.Background(), "", InstanceRef{Namespace: "prod", Service: "a.b.c.d.e", Levels: Levels{Role: "x"}, ID: "i"})
	mustBeInvalid(t, err, []string{"organization", "businessDomain", "capabilityDomain", "application"}, "all five levels")
	mustEqual(t, "the number of proposals", m.proposed, 0)
}

// TestEndpointNamesOfAServiceAreBounded shows that a service cannot gather names without end.
func TestEndpointNamesOfAServiceAreBounded(t *testing.T) {
	m := newMember(t, newManualClock())
	for n := range serviceEndpointNamesMax {
		r := good()
		r.Endpoints[0].Name = "e" + strconv.Itoa(n)
		m.register(r)
	}
	r := good()
	r.Endpoints[0].Name = "one-more"
	_, err := m.registry.Register(context.Background(), "", r)
	mustBeInvalid(t, err, []string{"endpoints"}, "more than 64 endpoint names")
	svc := m.machine.Service(ServiceKey{"prod", "orders"})
	mustEqual(t, "the number of names", len(svc.Endpoints), serviceEndpointNamesMax)
	mustEqual(t, "the primary", svc.Endpoints[0], ServiceEndpoint{Name: "e0", Protocol: "http"})
	mustEqual(t, "the instance's endpoint", svc.Instances[0].Endpoints[0].Name, "e63")
}

// FuzzRegistrationNormalForm shows that whatever is accepted is its own normal
// form, can be stored under a key of three parts, and is read back as it was.
func FuzzRegistrationNormalForm(f *testing.F) {
	corpus.Add(f, "plain", "prod", "orders", "a#b", "z", "http", "10.0.0.1", "/", "k", "v", int32(80), int32(0), int64(0))
	corpus.Add(f, "to be made plain", " p ", "a.b.c.d.e", "10.0.0.1:80", "", "GRPC+x", "[::FFFF:1.2.3.4]", "", " ", "\xff", int32(65535), int32(65535), int64(604800))
	corpus.Add(f, "odd letters", "Mesh", "a.-.c_.d.e", "*", "é", "h2c", "Node.Example.Com.", "p?q", "a/b", "\n", int32(1), int32(7), int64(1))
	f.Fuzz(func(t *testing.T, namespace, service, id, zone, protocol, host, path, key, value string, port, weight int32, ttl int64) {
		given := Registration{
			Namespace: namespace, Service: service, ID: id, Zone: zone, Labels: map[string]string{key: value}, LeaseTTLSeconds: ttl,
			Endpoints: []Endpoint{{Protocol: protocol, Host: host, Port: port, Path: path, Weight: weight}},
		}
		normal, err := given.normalize()
		if err != nil {
			return
		}
		again, err := normal.normalize()
		if diff := cmp.Diff(normal, again, cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Fatalf("the normal form of the normal form: %v\n%s", err, diff)
		}
		k := normal.instanceKey()
		mustEqual(t, "the slashes in the key", strings.Count(k.Namespace+k.Service+k.ID, "/"), 0)
		i := newReader("here").instance(k, specOf(normal))
		back, err := newReader("here").decodeInstance(k, i.encode())
		if diff := cmp.Diff(i, back); err != nil || diff != "" {
			t.Fatalf("read back: %v\n%s", err, diff)
		}
	})
}

package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// TestAPolicyIsToldAllThatIsWrongWithIt shows each refusal, contradictions
// included, and that one answer has them all.
func TestAPolicyIsToldAllThatIsWrongWithIt(t *testing.T) {
	for text, want := range map[string][]string{
		`{"graceSeconds":0}`:                                   {"graceSeconds: 0 is not allowed: 1 to 86400"},
		`{"graceSeconds":86401}`:                               {"graceSeconds: 86401 is not allowed"},
		`{"localPort":1023}`:                                   {"localPort: 1023 is not allowed: 1024 to 65535"},
		`{"localPort":65536}`:                                  {"localPort: 65536 is not allowed"},
		`{"primaryEndpoint":{}}`:                               {`primaryEndpoint.name: "" is not allowed`, `primaryEndpoint.protocol: "" is not allowed`},
		`{"primaryEndpoint":{"name":"a b","protocol":"HTTP"}}`: {`primaryEndpoint.name: "a b" is not allowed`},

		`{"loadBalancing":{"algorithm":"fastest"}}`:                          {`loadBalancing.algorithm: "fastest" is not known: round-robin, least-request, random, ring-hash, maglev, client-side-weighted-round-robin`},
		`{"loadBalancing":{"algorithm":"maglev"}}`:                           {"loadBalancing.hashHeader: is missing: maglev chooses by the value of a header"},
		`{"loadBalancing":{"hashHeader":"x-user"}}`:                          {"loadBalancing.hashHeader: is for ring-hash and maglev, not for round-robin"},
		`{"loadBalancing":{"algorithm":"ring-hash","hashHeader":"x: user"}}`: {`loadBalancing.hashHeader: "x: user" is not the name of a header`},

		`{"outlierDetection":{"disabled":true,"localFailures":1}}`:         {"outlierDetection.disabled: contradicts the other fields"},
		`{"outlierDetection":{"baseEjectionMs":31000}}`:                    {"outlierDetection.maxEjectionMs: is 30000, less than the 31000 of baseEjectionMs"},
		`{"outlierDetection":{"maxEjectionMs":2000}}`:                      {"outlierDetection.maxEjectionMs: is 2000, less than the 3000 of baseEjectionMs"},
		`{"outlierDetection":{"maxEjectionPercent":101,"intervalMs":1}}`:   {"outlierDetection.intervalMs: 1 is not allowed", "outlierDetection.maxEjectionPercent: 101 is not allowed"},
		`{"outlierDetection":{"localFailures":0,"gatewayFailures":20000}}`: {"outlierDetection.localFailures: 0 is not allowed", "outlierDetection.gatewayFailures: 20000 is not allowed"},

		`{"circuitBreaking":{"maxConnections":0,"maxPendingRequests":-1,"maxRequests":9999999,"retryBudgetPercent":101,"minRetries":-1}}`: {
			"circuitBreaking.maxConnections: 0", "circuitBreaking.maxPendingRequests: -1", "circuitBreaking.maxRequests: 9999999",
			"circuitBreaking.retryBudgetPercent: 101", "circuitBreaking.minRetries: -1"},

		`{"timeouts":{"requestMs":1000,"perTryMs":1001,"connectMs":2000}}`: {
			"timeouts.perTryMs: is 1001, more than the 1000 of requestMs", "timeouts.connectMs: is 2000, more than the 1000 of requestMs"},
		`{"timeouts":{"perTryMs":16000}}`:               {"timeouts.perTryMs: is 16000, more than the 15000 of requestMs"},
		`{"timeouts":{"requestMs":0,"perTryMs":16000}}`: nil,

		`{"retries":{"attempts":0,"statuses":[503]}}`:       {"retries.attempts: is 0 although there are reasons to try again"},
		`{"retries":{"when":["5xx","sometimes"]}}`:          {`retries.when[0]: "5xx" would repeat requests that were processed`, `retries.when[1]: "sometimes" is not known: cancelled,`},
		`{"retries":{"attempts":11,"statuses":[200,1000]}}`: {"retries.attempts: 11 is not allowed", "retries.statuses[0]: 200 is not allowed", "retries.statuses[1]: 1000 is not allowed"},
		`{"retries":{"attempts":0},"timeouts":{"perTryMs":5},"circuitBreaking":{"minRetries":3}}`: {
			"circuitBreaking: bounds retries, and retries.attempts is 0", "timeouts.perTryMs: is the time of each try, and retries.attempts is 0"},

		`{"reports":{"quorum":1,"windowSeconds":0,"lastsSeconds":601,"maxPercent":0}}`: {
			"reports.effect: is missing: what instances that are reported become, warning or critical", "reports.quorum: 1 is not allowed: 2 to 16",
			"reports.windowSeconds: 0 is not allowed: 1 to 600", "reports.lastsSeconds: 601 is not allowed: 1 to 600", "reports.maxPercent: 0 is not allowed: 1 to 100"},
		`{"reports":{"effect":"unhealthy","quorum":17}}`:     {`reports.effect: "unhealthy" is not what reports can bring about: warning or critical`, "reports.quorum: 17 is not allowed"},
		`{"reports":{"effect":"warning","maxPercent":50}}`:   {"reports.maxPercent: bounds how many instances are critical, and reports.effect is warning"},
		`{"reports":{"effect":"critical","maxPercent":100}}`: nil,
		`{"reports":{"effect":"warning","fromLoad":{}}}`:     {"reports.fromLoad.errorPercent: is missing"},
		`{"reports":{"effect":"warning","fromLoad":{"errorPercent":101,"minRequests":0}}}`: {
			"reports.fromLoad.errorPercent: 101 is not allowed: 1 to 100", "reports.fromLoad.minRequests: 0 is not allowed: 1 to 1000000"},
		`{"reports":{"effect":"warning","fromLoad":{"errorPercent":100}}}`: nil,
		`{"outlierDetection":{"minRequests":5}}`:                           {"outlierDetection.minRequests: says from how many calls on failurePercent counts, and there is none"},
		`{"outlierDetection":{"failurePercent":100,"minRequests":0}}`: {
			"outlierDetection.failurePercent: 100 is not allowed: 1 to 99", "outlierDetection.minRequests: 0 is not allowed: 1 to 1000000"},

		`{"selfPreservation":{"enabled":false,"percent":100,"least":0,"limitSeconds":3601}}`: {
			"selfPreservation.enabled: is false, which contradicts the other fields", "selfPreservation.least: 0 is not allowed: 1 to",
			"selfPreservation.percent: 100 is not allowed: 1 to 99", "selfPreservation.limitSeconds: 3601 is not allowed: 1 to 3600"},
		`{"selfPreservation":{"enabled":true,"percent":50}}`: nil,

		`{"loadBalancing":{"algorithm":"maglev","hashHeader":"a","hashSourceAddress":true}}`: {"loadBalancing.hashSourceAddress: contradicts hashHeader"},
		`{"loadBalancing":{"hashCookie":{"name":"a=b","ttlSeconds":0}}}`: {
			"loadBalancing.hashCookie: is for ring-hash and maglev, not for round-robin", `loadBalancing.hashCookie.name: "a=b" is not the name of a cookie`, "loadBalancing.hashCookie.ttlSeconds: 0 is not allowed: 1 to 31536000"},
		`{"loadBalancing":{"algorithm":"client-side-weighted-round-robin"}}`: nil,
		`{"checks":{}}`: {"checks.kind: is missing: http, grpc or tcp"},
		`{"checks":{"kind":"udp","path":"/a","service":"b","intervalMs":99,"timeoutMs":0,"unhealthyAfter":0,"healthyAfter":101}}`: {
			`checks.kind: "udp" is not known: http, grpc, tcp`, "checks.path: is for checks of kind http", "checks.service: is for checks of kind grpc",
			"checks.intervalMs: 99 is not allowed: 100 to", "checks.timeoutMs: 0", "checks.unhealthyAfter: 0", "checks.healthyAfter: 101"},
		`{"checks":{"kind":"http"}}`:                 {`checks.path: "" is not allowed: a path from / on`},
		`{"checks":{"kind":"grpc","service":"a/b"}}`: {`checks.service: "a/b" is not allowed`},
		`{"drops":[{"category":"a b","percent":0},{"category":"x","percent":101},{"category":"x","percent":1}]}`: {
			`drops[0].category: "a b" is not allowed`, "drops[0].percent: 0 is not allowed: 1 to 100", "drops[1].percent: 101", "drops[2].category: is that of drops[1]"},
		`{"drops":[` + strings.Repeat(`{},`, 8) + `{}]}`: {"drops: has 9 drops: at most 8"},
		`{"routes":[{"fault":{"delayPercent":0,"abortPercent":101}}]}`: {
			"routes[0].fault.delayPercent: 0 is not allowed", "routes[0].fault.abortPercent: 101 is not allowed",
			"routes[0].fault.delayPercent: is a share of nothing", "routes[0].fault.abortPercent: is a share of nothing"},
		`{"routes":[{"fault":{"delayMs":0,"abortStatus":199}}]}`: {"routes[0].fault.delayMs: 0 is not allowed", "routes[0].fault.abortStatus: 199 is not allowed: 200 to 599"},

		`{"subsets":[{"name":"a b"},{"name":"v2","version":"2"},{"name":"V2","version":"2","labels":{"` + strings.Repeat("k", 254) + `":"x"}}]}`: {
			`subsets[0].name: "a b" is not allowed`, "subsets[0]: selects nothing: give a version, labels, or both",
			`subsets[2].labels["kkkk`, `subsets[2].name: "V2" is already the name of subsets[1], upper and lower case being the same`},
		`{"subsets":[` + strings.Repeat(`{"name":"a","version":"1"},`, 16) + `{"name":"a","version":"1"}]}`: {"subsets: has 17 subsets: at most 16"},
		`{"routes":[` + strings.Repeat(`{},`, 32) + `{}]}`:                                                  {"routes: has 33 routes: at most 32"},
		`{"routes":[{},{"match":{"path":"/a"}},{"match":{"path":"/a"}}]}`: {
			"routes[1].match: is never reached: routes[0] matches all", "routes[2].match: is never reached: routes[0] matches all"},
		`{"routes":[{"match":{"path":"/a"}},{"match":{"prefix":"/a"}},{"match":{"path":" /a "}}]}`: {"routes[2].match: is never reached: routes[0]"},
		`{"routes":[{"match":{"path":"a","prefix":"/b?c","method":"G ET"}}]}`: {
			"routes[0].match.prefix: contradicts path", `routes[0].match.path: "a" is not allowed: a path from / on`,
			`routes[0].match.prefix: "/b?c" is not allowed`, `routes[0].match.method: "G ET" is not a method`},
		`{"routes":[{"match":{"headers":[{"name":":path","exact":"x"},{"name":"a"},{"name":"b","exact":"1","present":true},{"name":"c","prefix":"\n"}]}}]}`: {
			`routes[0].match.headers[0].name: ":path" is not the name of a header`, "routes[0].match.headers[1]: takes one of exact, prefix and present",
			"routes[0].match.headers[2]: takes one of", "routes[0].match.headers[3].prefix: is not allowed: printable"},
		`{"routes":[{"match":{"headers":[` + strings.Repeat(`{"name":"a","present":true},`, 8) + `{"name":"a","present":true}]}}]}`: {"routes[0].match.headers: has 9 headers: at most 8"},
		`{"routes":[{"split":[{"subset":"v2","weight":1}]}]}`:                                                                       {`routes[0].split[0].subset: "v2" is not known: this policy has no subsets`},
		`{"subsets":[{"name":"v2","version":"2"}],"routes":[{"split":[{"subset":"v3","weight":-1},{"weight":1},{"weight":10001}]}]}`: {
			`routes[0].split[0].subset: "v3" is not known: the subsets are v2`, "routes[0].split[0].weight: -1 is not allowed: 0 to 10000",
			"routes[0].split[2].weight: 10001 is not allowed", "routes[0].split[2].subset: is that of split[1]: give it one weight"},
		`{"routes":[{"split":[{"weight":0}],"mirror":{}}]}`: {"routes[0].split: has no weight above 0", "routes[0].mirror: takes one of subset and service"},
		`{"routes":[{"mirror":{"subset":"v2","service":"a b","percent":101}}]}`: {
			"routes[0].mirror: takes one of", `routes[0].mirror.subset: "v2" is not known`, `routes[0].mirror.service: "a b" is not allowed`, "routes[0].mirror.percent: 101 is not allowed: 1 to 100"},
		`{"routes":[{"prefixRewrite":"/x"},{"match":{"path":"/a"},"prefixRewrite":"x"}]}`: {
			"routes[0].prefixRewrite: needs a match.path or a match.prefix", `routes[1].prefixRewrite: "x" is not allowed`, "routes[1].match: is never reached"},
		`{"timeouts":{"perTryMs":5000},"routes":[{"match":{"path":"/a"},"timeouts":{"requestMs":4000}},{"timeouts":{"requestMs":-1,"perTryMs":0}}]}`: {
			"routes[0].timeouts: leaves 5000 for each try and 4000 for the request", "routes[1].timeouts.requestMs: -1 is not allowed", "routes[1].timeouts.perTryMs: 0 is not allowed"},
		`{"retries":{"attempts":0},"routes":[{"match":{"path":"/a"},"retries":{"when":["unavailable"]}},{"match":{"path":"/b"},"timeouts":{"perTryMs":5}},{"retries":{"attempts":1,"when":["5xx"]}}]}`: {
			"routes[0].retries: says when to try again, and retries.attempts of the service is 0", "routes[1].timeouts.perTryMs: is the time of each try",
			`routes[2].retries.when[0]: "5xx" would repeat`},
		manyRoutes(32, 256): {"routes: make a policy of 37"},
		manyRoutes(32, 200): nil,

		`{"protectThreshold":1.5}`:                    {"protectThreshold: 1.5 is not a share: 0 (never) to 1"},
		`{"protectThreshold":-0.1}`:                   {"protectThreshold: -0.1 is not a share"},
		`{"protectThreshold":0.1,"failClosed":true}`:  {"protectThreshold: hands out unhealthy instances, and failClosed refuses"},
		`{"failover":{"overprovisioningPercent":99}}`: {"failover.overprovisioningPercent: 99 is not allowed: 100 to 1000"},
		`{"failover":{"mode":"nearest"}}`:             {`failover.mode: "nearest" is not known: local-only, local-first, remote-fallback, merged, gateway`},
		`{"failover":{"regions":["b"," b ","c d"],"minPassing":0,"allOrNothing":true,"minHealthyPercent":101,"overprovisioningPercent":140}}`: {
			"failover.minPassing: 0 is not allowed: 1 to", "failover.minHealthyPercent: 101 is not allowed: 1 to 100", `failover.regions[1]: "b" stands there twice`,
			`failover.regions[2]: "c d" is not allowed`, "failover.minPassing: is for failover.mode local-first", "failover.overprovisioningPercent: is how much of the calls"},
		`{"failover":{"mode":"local-only","regions":["b"],"allOrNothing":true}}`:              {"failover.regions: is an order, and failover.mode local-only has none", "failover.allOrNothing: is when calls go"},
		`{"failover":{"mode":"merged","regions":["b"],"allOrNothing":true,"zoneFirst":true}}`: {"failover.regions: is an order", "failover.allOrNothing: is when", "failover.zoneFirst: is an order"},
		`{"failover":{"mode":"gateway","gateway":"doors"},"primaryEndpoint":{"name":"x","protocol":"redis"}}`: {
			`failover.gateway: "doors" is not allowed: a service and its namespace with a dot between`, "failover.mode: gateway is for what says where to, and redis, by primaryEndpoint.protocol, does not"},
		`{"failover":{"gateway":"doors.infra"}}`:                                                 {"failover.gateway: is for failover.mode gateway"},
		`{"failover":{"mode":"remote-fallback","minPassing":2,"minHealthyPercent":50}}`:          {"failover.minPassing: is for", "failover.minHealthyPercent: is for failover.allOrNothing"},
		`{"failover":{"regions":[` + strings.Repeat(`"b",`, 63) + `"b","b"]}}`:                   manyTwice(64),
		`{"failover":{"mode":"local-only","zoneFirst":true,"overprovisioningPercent":200}}`:      nil,
		`{"failover":{"mode":"local-first","minPassing":2,"regions":["b"],"allOrNothing":true}}`: nil,
		`{"failover":{"stale":"gone","staleAfterSeconds":29}}`:                                   {"failover.staleAfterSeconds: 29 is not allowed: 30 to 604800, or leave it out for the default", `failover.stale: "gone" is not known: keep, suspect or withhold`},
		`{"failover":{"stale":"withhold"}}`:                                                      {"failover.staleAfterSeconds: is missing: from which age of a region's copy on its instances are stale, 30 to 604800"},
		`{"failover":{"staleAfterSeconds":60}}`:                                                  {`failover.stale: is "keep", for which failover.staleAfterSeconds has no meaning: give suspect or withhold, or leave both out`},
		`{"graceSeconds":-1,"timeouts":{"connectMs":0},"loadBalancing":{"algorithm":"x"}}`: {
			"graceSeconds: -1", `loadBalancing.algorithm: "x"`, "timeouts.connectMs: 0"},
	} {
		m := newMember(t, newManualClock())
		_, err := m.registry.PutPolicy(context.Background(), "", ServiceKey{"prod", "orders"}, policyOf(t, text), Writing{})
		var invalid *ValidationError
		if len(want) == 0 {
			if err != nil {
				t.Errorf("%s is refused: %v", text, err)
			}
			continue
		}
		if !errors.As(err, &invalid) || len(invalid.Problems) != len(want) || m.proposed != 0 {
			t.Errorf("%s: %v, after %d proposals; want %d problems", text, err, m.proposed, len(want))
			continue
		}
		for i, p := range invalid.Problems {
			if got := p.Field + ": " + p.Reason; !strings.HasPrefix(got, want[i]) {
				t.Errorf("%s: problem %d is %q, want %q", text, i, got, want[i])
			}
		}
	}
}

// manyTwice are the problems of a list of one region more than there may be, all of the same name.
func manyTwice(n int) []string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf(`failover.regions[%d]: "b" stands there twice`, i+1))
	}
	return append(out, "failover.regions: has 65 regions: at most 64")
}

// manyRoutes is a policy with routes whose paths and headers have so many bytes.
func manyRoutes(n, size int) string {
	var routes []string
	for i := range n {
		path := fmt.Sprintf("/%03d", i) + strings.Repeat("p", size-4)
		header := `{"name":"a","exact":"` + strings.Repeat("v", size) + `"}`
		routes = append(routes, `{"match":{"path":"`+path+`","headers":[`+header+`,`+header+`,`+header+`]},"prefixRewrite":"`+path[:100]+`"}`)
	}
	return `{"routes":[` + strings.Join(routes, ",") + `]}`
}

func policyOf(t *testing.T, text string) Policy {
	t.Helper()
	var p Policy
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return p
}

// whole has every field of a policy.
const whole = `{"graceSeconds":60,"localPort":5432,"primaryEndpoint":{"name":"web","protocol":"h2c"},"loadBalancing":{"algorithm":"maglev","hashHeader":"x-user","hashCookie":{"name":"a","ttlSeconds":1},"hashSourceAddress":true},
	"checks":{"kind":"http","path":"/a","service":"b","intervalMs":1,"timeoutMs":2,"unhealthyAfter":3,"healthyAfter":4},"drops":[{"category":"a","percent":1}],
	"outlierDetection":{"disabled":true,"localFailures":1,"gatewayFailures":2,"intervalMs":3,"baseEjectionMs":4,"maxEjectionMs":5,"maxEjectionPercent":6,"failurePercent":7,"minRequests":8},
	"circuitBreaking":{"maxConnections":1,"maxPendingRequests":2,"maxRequests":3,"retryBudgetPercent":4,"minRetries":5},
	"timeouts":{"connectMs":1,"requestMs":2,"perTryMs":3},"retries":{"attempts":1,"when":["unavailable"],"statuses":[503]},
	"failover":{"overprovisioningPercent":140,"mode":"local-first","regions":["b"],"minPassing":2,"zoneFirst":true,"allOrNothing":true,"minHealthyPercent":50,"stale":"suspect","staleAfterSeconds":60,"gateway":"doors.infra"},"failClosed":true,"protectThreshold":0.5,
	"reports":{"effect":"critical","quorum":2,"windowSeconds":3,"lastsSeconds":4,"maxPercent":5,"fromLoad":{"errorPercent":6,"minRequests":7}},
	"selfPreservation":{"enabled":true,"least":2,"percent":3,"limitSeconds":4},
	"subsets":[{"name":"canary","version":"2","labels":{"track":"beta","zone":"a"}}],
	"routes":[{"match":{"path":"/a","prefix":"/b","method":"GET","headers":[{"name":"a","exact":"b","prefix":"c","present":true}]},
		"split":[{"subset":"canary","weight":1}],"mirror":{"subset":"canary","service":"shadow","percent":5},
		"timeouts":{"requestMs":1,"perTryMs":2},"retries":{"attempts":1,"when":["unavailable"],"statuses":[503]},"prefixRewrite":"/c",
		"fault":{"delayMs":1,"delayPercent":2,"abortStatus":503,"abortPercent":4}}]}`

// TestAPolicyIsStoredWhole shows that every field comes back from the record.
func TestAPolicyIsStoredWhole(t *testing.T) {
	p := policyOf(t, whole)
	mustBeFilled(t, reflect.ValueOf(p), "policy")
	if got := policyOfRecord(p.record()); !reflect.DeepEqual(*got, p) {
		t.Errorf("it comes back as %s", fieldsOf(got))
	}
}

func mustBeFilled(t *testing.T, v reflect.Value, at string) {
	t.Helper()
	for i := range v.NumField() {
		f, name := v.Field(i), at+"."+v.Type().Field(i).Name
		if f.IsZero() {
			t.Errorf("the test leaves %s out", name)
		} else if f.Kind() == reflect.Pointer && f.Elem().Kind() == reflect.Struct {
			mustBeFilled(t, f.Elem(), name)
		} else if f.Kind() == reflect.Slice && f.Type().Elem().Kind() == reflect.Struct {
			mustBeFilled(t, f.Index(0), name)
		}
	}
}

// TestAPolicyHasOneForm shows that what says the same is the same: sections that
// say nothing, spaces, and the order of reasons.
func TestAPolicyHasOneForm(t *testing.T) {
	for text, want := range map[string]string{
		`{"timeouts":{},"retries":{"when":[]},"failover":{},"outlierDetection":{"disabled":false}}`: `{}`,
		`{"retries":{"when":["unavailable","cancelled","unavailable"],"statuses":[503,502]}}`:       `{"retries":{"when":["cancelled","unavailable"],"statuses":[502,503]}}`,
		`{"subsets":[{"name":" v2 ","version":" 2 ","labels":{" a ":" b "}}],"routes":[{"match":{"prefix":"/","method":"get","headers":[{"name":" X-User ","present":true}]},"split":[{"subset":" v2","weight":1}],"retries":{},"timeouts":{}},{"match":{"prefix":"/"},"split":[]}]}`: `{"subsets":[{"name":"v2","version":"2","labels":{"a":"b"}}],"routes":[{"match":{"method":"GET","headers":[{"name":"x-user","present":true}]},"split":[{"subset":"v2","weight":1}]},{}]}`,
		`{"failover":{"regions":[" b ","a"],"mode":"remote-fallback"}}`: `{"failover":{"mode":"remote-fallback","regions":["b","a"]}}`,
		`{"primaryEndpoint":{"name":" web ","protocol":"H2C"}}`:         `{"primaryEndpoint":{"name":"web","protocol":"h2c"}}`,
	} {
		var bad problems
		p := policyOf(t, text).normalize(&bad)
		got, err := json.Marshal(p)
		if string(got) != want || len(bad) > 0 || err != nil {
			t.Errorf("%s becomes %s (%v, %v), want %s", text, got, bad, err, want)
		}
	}
}

// TestASubsetSelectsByVersionAndLabels shows that an instance needs all that is asked for.
func TestASubsetSelectsByVersionAndLabels(t *testing.T) {
	i := &Instance{Origin: &Origin{Version: "v2"}, Labels: PairsOf(map[string]string{"track": "beta", "rack": "7"})}
	for _, c := range []struct {
		subset Subset
		want   bool
	}{
		{Subset{Version: "v2"}, true},
		{Subset{Version: "V2"}, false},
		{Subset{Labels: map[string]string{"track": "beta"}}, true},
		{Subset{Labels: map[string]string{"track": "beta", "rack": "8"}}, false},
		{Subset{Labels: map[string]string{"missing": ""}}, false},
		{Subset{Version: "v2", Labels: map[string]string{"track": "beta", "rack": "7"}}, true},
		{Subset{Version: "v1", Labels: map[string]string{"track": "beta"}}, false},
	} {
		if got := c.subset.Selects(i); got != c.want {
			t.Errorf("%+v selects it: %t, want %t", c.subset, got, c.want)
		}
	}
}

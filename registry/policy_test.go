package registry

import (
	"context"
	"encoding/json"
	"errors"
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
		`{"primaryEndpoint":{}}`:                               {`primaryEndpoint.name: "" is not allowed`, `primaryEndpoint.protocol: "" is not allowed`},
		`{"primaryEndpoint":{"name":"a b","protocol":"HTTP"}}`: {`primaryEndpoint.name: "a b" is not allowed`},

		`{"loadBalancing":{"algorithm":"fastest"}}`:                          {`loadBalancing.algorithm: "fastest" is not known: round-robin, least-request, random, ring-hash, maglev`},
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

		`{"selfPreservation":{"enabled":false,"percent":100,"least":0,"limitSeconds":3601}}`: {
			"selfPreservation.enabled: is false, which contradicts the other fields", "selfPreservation.least: 0 is not allowed: 1 to",
			"selfPreservation.percent: 100 is not allowed: 1 to 99", "selfPreservation.limitSeconds: 3601 is not allowed: 1 to 3600"},
		`{"selfPreservation":{"enabled":true,"percent":50}}`: nil,

		`{"protectThreshold":1.5}`:                    {"protectThreshold: 1.5 is not a share: 0 (never) to 1"},
		`{"protectThreshold":-0.1}`:                   {"protectThreshold: -0.1 is not a share"},
		`{"protectThreshold":0.1,"failClosed":true}`:  {"protectThreshold: hands out unhealthy instances, and failClosed refuses"},
		`{"failover":{"overprovisioningPercent":99}}`: {"failover.overprovisioningPercent: 99 is not allowed: 100 to 1000"},
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

func policyOf(t *testing.T, text string) Policy {
	t.Helper()
	var p Policy
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return p
}

// whole has every field of a policy.
const whole = `{"graceSeconds":60,"primaryEndpoint":{"name":"web","protocol":"h2c"},"loadBalancing":{"algorithm":"maglev","hashHeader":"x-user"},
	"outlierDetection":{"disabled":true,"localFailures":1,"gatewayFailures":2,"intervalMs":3,"baseEjectionMs":4,"maxEjectionMs":5,"maxEjectionPercent":6},
	"circuitBreaking":{"maxConnections":1,"maxPendingRequests":2,"maxRequests":3,"retryBudgetPercent":4,"minRetries":5},
	"timeouts":{"connectMs":1,"requestMs":2,"perTryMs":3},"retries":{"attempts":1,"when":["unavailable"],"statuses":[503]},
	"failover":{"overprovisioningPercent":140},"failClosed":true,"protectThreshold":0.5,
	"reports":{"effect":"critical","quorum":2,"windowSeconds":3,"lastsSeconds":4,"maxPercent":5},
	"selfPreservation":{"enabled":true,"least":2,"percent":3,"limitSeconds":4}}`

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
		}
	}
}

// TestAPolicyHasOneForm shows that what says the same is the same: sections that
// say nothing, spaces, and the order of reasons.
func TestAPolicyHasOneForm(t *testing.T) {
	for text, want := range map[string]string{
		`{"timeouts":{},"retries":{"when":[]},"failover":{},"outlierDetection":{"disabled":false}}`: `{}`,
		`{"retries":{"when":["unavailable","cancelled","unavailable"],"statuses":[503,502]}}`:       `{"retries":{"when":["cancelled","unavailable"],"statuses":[502,503]}}`,
		`{"primaryEndpoint":{"name":" web ","protocol":"H2C"}}`:                                     `{"primaryEndpoint":{"name":"web","protocol":"h2c"}}`,
	} {
		var bad problems
		p := policyOf(t, text).normalize(&bad)
		got, err := json.Marshal(p)
		if string(got) != want || len(bad) > 0 || err != nil {
			t.Errorf("%s becomes %s (%v, %v), want %s", text, got, bad, err, want)
		}
	}
}

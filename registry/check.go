package registry

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
)

// A Check is how the cluster tries whether an endpoint works. The registry keeps
// it and knows what it must look like; it is made by package probe, whose word is a
// condition of SourceCheck and the check's name.
type Check struct {
	Name            string // unique within the instance; the kind when none was given
	Kind            string // one of checkKinds
	Endpoint        string // the name of the one that is tried; the first when none was given
	Path            string // of http and https
	Service         string // of grpc and grpcs; empty = the whole server
	Send            string // of tcp and tls: what is sent once the connection stands
	Expect          string // of tcp and tls: what the answer must begin with; empty = no answer is waited for
	ServerName      string // what a certificate must be for; empty = the endpoint's host
	TLSSkipVerify   bool   // any certificate is good
	IntervalSeconds int64
	TimeoutSeconds  int64
	Rise            int32  // so many successes in a row make it pass
	Fall            int32  // so many failures in a row make it fail
	Initial         string // passing, warning or critical: before it has been tried often enough
}

// The kinds of checks.
const (
	CheckHTTP  = "http"  // GET; 2xx passes, 429 warns
	CheckHTTPS = "https" // the same over TLS
	CheckTCP   = "tcp"   // a connection, and an answer where one is expected
	CheckTLS   = "tls"   // the same over TLS
	CheckGRPC  = "grpc"  // grpc.health.v1
	CheckGRPCS = "grpcs" // the same over TLS
	CheckRedis = "redis" // PING
	CheckMySQL = "mysql" // the greeting, and the answer to a login that is refused
)

var checkKinds = [...]string{CheckHTTP, CheckHTTPS, CheckTCP, CheckTLS, CheckGRPC, CheckGRPCS, CheckRedis, CheckMySQL}

// The bounds of checks, and what is taken where nothing is given.
const (
	checksMax               = 8
	checkTextBytesMax       = 512 // of what is sent, and of what is expected
	checkIntervalSeconds    = int64(5)
	checkIntervalSecondsMax = int64(3600)
	checkTimeoutSeconds     = int64(2)
	checkTimeoutSecondsMax  = int64(60)
	checkRise               = int32(2)
	checkFall               = int32(3)
	checkThresholdMax       = int32(100)
)

// Address is where the check is made: false says that its endpoint is not there.
func (c *Check) Address(i *Instance) (Endpoint, bool) { return i.Endpoint(c.Endpoint) }

// Interval is the time from one try to the next.
func (c *Check) Interval() time.Duration { return time.Duration(c.IntervalSeconds) * time.Second }

// Timeout is how long a try may take.
func (c *Check) Timeout() time.Duration { return time.Duration(c.TimeoutSeconds) * time.Second }

// overTLS says that there is a certificate to be looked at.
func (c *Check) overTLS() bool {
	return c.Kind == CheckHTTPS || c.Kind == CheckTLS || c.Kind == CheckGRPCS
}

// Checks are those of the instance, in the order registered. They are shared by
// whoever has the same.
func (i *Instance) Checks() []Check {
	if i.Health == nil {
		return nil
	}
	return i.Health.Checks
}

// check finds one by name.
func (i *Instance) check(name string) (Check, bool) {
	checks := i.Checks()
	at := slices.IndexFunc(checks, func(c Check) bool { return c.Name == name })
	if at < 0 {
		return Check{}, false
	}
	return checks[at], true
}

// begin is what is said of an instance that is registered, for its checks. What is
// known of a check that stays as it was is kept: a process that registers itself
// every few seconds and does not work must not be taken for a working one each
// time. One that has been away, or is checked in another way, begins anew.
func (i *Instance) begin(old *Instance, conditions []Condition, now int64) []Condition {
	for _, check := range i.Checks() {
		if said, known := i.knownFrom(old, check); known {
			conditions = append(conditions, said...)
			continue
		}
		if initial := statusCalled(check.Initial); initial != StatusPassing {
			conditions = append(conditions, Condition{Source: SourceCheck, Name: check.Name, Status: initial, Since: now, Reason: "has not been tried often enough yet"})
		}
	}
	slices.SortFunc(conditions, func(a, b Condition) int { return a.compare(b.Source, b.Name) })
	return conditions
}

// knownFrom is what the same check has said of the instance as it was before, if it was made.
func (i *Instance) knownFrom(old *Instance, check Check) ([]Condition, bool) {
	if old == nil || !old.alive() {
		return nil, false
	}
	before, found := old.check(check.Name)
	was, _ := old.Endpoint(check.Endpoint)
	if is, _ := i.Endpoint(check.Endpoint); !found || before != check || was.Host != is.Host || was.Port != is.Port {
		return nil, false
	}
	if said, found := old.Condition(SourceCheck, check.Name); found {
		return []Condition{said}, true
	}
	return nil, true
}

// normalizeChecks completes checks and finds what is wrong with them, given the endpoints.
func normalizeChecks(given []Check, endpoints []Endpoint, bad *problems) []Check {
	if len(given) > checksMax {
		bad.add("checks", fmt.Sprintf("has %d checks: at most %d", len(given), checksMax))
		return nil
	}
	var out []Check
	for n, c := range given {
		at := fmt.Sprintf("checks[%d].", n)
		c.complete(endpoints)
		c.inspect(at, endpoints, bad)
		twin := slices.IndexFunc(out, func(o Check) bool { return o.Name == c.Name && c.Name != "" })
		if twin >= 0 {
			bad.add(at+"name", fmt.Sprintf("%s is already the name of checks[%d]: give each check its own (the kind is the default)", quoted(c.Name), twin))
		}
		out = append(out, c)
	}
	return out
}

// complete trims a check and puts in what was left out.
func (c *Check) complete(endpoints []Endpoint) {
	c.Kind = strings.ToLower(strings.TrimSpace(c.Kind))
	c.Name, c.Endpoint = strings.TrimSpace(c.Name), strings.TrimSpace(c.Endpoint)
	c.Path, c.ServerName = strings.TrimSpace(c.Path), strings.ToLower(strings.TrimSpace(c.ServerName))
	c.Initial = strings.ToLower(strings.TrimSpace(c.Initial))
	if c.Name == "" {
		c.Name = c.Kind
	}
	if c.Endpoint == "" && len(endpoints) > 0 {
		c.Endpoint = endpoints[0].Name
	}
	if c.Path == "" && (c.Kind == CheckHTTP || c.Kind == CheckHTTPS) {
		c.Path = "/"
	}
	if c.Initial == "" {
		c.Initial = StatusPassing.String()
	}
	setDefault(&c.IntervalSeconds, checkIntervalSeconds)
	setDefault(&c.TimeoutSeconds, min(checkTimeoutSeconds, c.IntervalSeconds))
	setDefault(&c.Rise, checkRise)
	setDefault(&c.Fall, checkFall)
}

func setDefault[T int32 | int64](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}

// inspect finds all that is wrong with a completed check.
func (c *Check) inspect(at string, endpoints []Endpoint, bad *problems) {
	switch {
	case c.Kind == "":
		bad.add(at+"kind", "is missing: "+strings.Join(checkKinds[:], ", "))
	case !slices.Contains(checkKinds[:], c.Kind):
		bad.add(at+"kind", fmt.Sprintf("%s is not a kind of check: %s", quoted(c.Kind), strings.Join(checkKinds[:], ", ")))
	case !isName(c.Name, ".-_"):
		bad.add(at+"name", fmt.Sprintf("%s is not allowed: %s", quoted(c.Name), nameRule))
	}
	if len(endpoints) > 0 && !slices.ContainsFunc(endpoints, func(e Endpoint) bool { return e.Name == c.Endpoint }) {
		bad.add(at+"endpoint", fmt.Sprintf("%s is no endpoint of the instance: the name of one, or nothing for the first", quoted(c.Endpoint)))
	}
	c.inspectTexts(at, bad)
	c.inspectNumbers(at, bad)
	switch statusCalled(c.Initial) {
	case StatusPassing, StatusWarning, StatusCritical:
	default:
		bad.add(at+"initial", fmt.Sprintf("%s is not what a check can begin with: passing, warning or critical", quoted(c.Initial)))
	}
}

// inspectTexts looks at what only some kinds have.
func (c *Check) inspectTexts(at string, bad *problems) {
	talks := c.Kind == CheckTCP || c.Kind == CheckTLS
	for _, field := range []struct {
		name    string
		given   bool
		allowed bool
		whose   string
	}{
		{"path", c.Path != "", c.Kind == CheckHTTP || c.Kind == CheckHTTPS, "http and https"},
		{"service", c.Service != "", c.Kind == CheckGRPC || c.Kind == CheckGRPCS, "grpc and grpcs"},
		{"send", c.Send != "", talks, "tcp and tls"},
		{"expect", c.Expect != "", talks, "tcp and tls"},
		{"serverName", c.ServerName != "", c.overTLS(), "https, tls and grpcs"},
		{"tlsSkipVerify", c.TLSSkipVerify, c.overTLS(), "https, tls and grpcs"},
	} {
		if field.given && !field.allowed && slices.Contains(checkKinds[:], c.Kind) {
			bad.add(at+field.name, fmt.Sprintf("is for the kinds %s only, this check is of kind %s: leave it out", field.whose, c.Kind))
		}
	}
	if c.Path != "" && (len(c.Path) > endpointPathMax || !isPath(c.Path)) {
		bad.add(at+"path", fmt.Sprintf("%s is not a path: begins with '/', with a query if need be and no fragment, at most %d bytes", quoted(c.Path), endpointPathMax))
	}
	if len(c.Service) > nameBytesMax || !isPrintable(c.Service) {
		bad.add(at+"service", fmt.Sprintf("is not allowed: printable characters, at most %d bytes", nameBytesMax))
	}
	for _, field := range []struct{ name, text string }{{"send", c.Send}, {"expect", c.Expect}} {
		if len(field.text) > checkTextBytesMax || !utf8.ValidString(field.text) {
			bad.add(at+field.name, fmt.Sprintf("is not allowed: UTF-8, at most %d bytes", checkTextBytesMax))
		}
	}
	if c.ServerName != "" && c.TLSSkipVerify {
		bad.add(at+"serverName", "contradicts tlsSkipVerify, with which a certificate may be for any name: leave one of the two out")
	} else if c.ServerName != "" && hostNameProblem(c.ServerName) != "" {
		bad.add(at+"serverName", quoted(c.ServerName)+" is not a host name: the name that the certificate is for")
	}
}

func isPath(path string) bool {
	if !strings.HasPrefix(path, "/") || strings.Contains(path, "#") || !isPrintable(path) || strings.Contains(path, " ") {
		return false
	}
	_, err := url.ParseRequestURI(path)
	return err == nil
}

func (c *Check) inspectNumbers(at string, bad *problems) {
	if c.IntervalSeconds < 1 || c.IntervalSeconds > checkIntervalSecondsMax {
		bad.add(at+"intervalSeconds", fmt.Sprintf("%d is not allowed: 1 to %d, or 0 for %d", c.IntervalSeconds, checkIntervalSecondsMax, checkIntervalSeconds))
	}
	switch {
	case c.TimeoutSeconds < 1 || c.TimeoutSeconds > checkTimeoutSecondsMax:
		bad.add(at+"timeoutSeconds", fmt.Sprintf("%d is not allowed: 1 to %d, or 0 for %d", c.TimeoutSeconds, checkTimeoutSecondsMax, checkTimeoutSeconds))
	case c.TimeoutSeconds > c.IntervalSeconds:
		bad.add(at+"timeoutSeconds", fmt.Sprintf("%d is longer than the interval of %d: a try must end before the next", c.TimeoutSeconds, c.IntervalSeconds))
	}
	for _, field := range []struct {
		name  string
		value int32
		usual int32
	}{{"rise", c.Rise, checkRise}, {"fall", c.Fall, checkFall}} {
		if field.value < 1 || field.value > checkThresholdMax {
			bad.add(at+field.name, fmt.Sprintf("%d is not allowed: 1 to %d, or 0 for %d", field.value, checkThresholdMax, field.usual))
		}
	}
}

func checksToRecord(checks []Check) []*recordv1.Check {
	var out []*recordv1.Check
	for i := range checks {
		c := &checks[i]
		out = append(out, &recordv1.Check{
			Name: c.Name, Kind: c.Kind, Endpoint: c.Endpoint, Path: c.Path, Service: c.Service, Send: c.Send, Expect: c.Expect,
			ServerName: c.ServerName, TlsSkipVerify: c.TLSSkipVerify, IntervalMs: c.IntervalSeconds * 1000, TimeoutMs: c.TimeoutSeconds * 1000,
			Rise: c.Rise, Fall: c.Fall, Initial: recordv1.InstanceRecord_Status(statusCalled(c.Initial)),
		})
	}
	return out
}

// checks are shared by all instances that have the same: those of a service most often do.
func (d *reader) checks(record []*recordv1.Check) []Check {
	if len(record) == 0 {
		return nil
	}
	key := ""
	for _, c := range record {
		b, _ := proto.MarshalOptions{Deterministic: true}.Marshal(c)
		key += fmt.Sprintf("%d %s", len(b), b)
	}
	if one, ok := d.sharedChecks[key]; ok {
		return one
	}
	checks := make([]Check, len(record))
	for i, c := range record {
		checks[i] = d.check(c)
	}
	if len(d.sharedChecks) == sharedChecksMax {
		clear(d.sharedChecks)
	}
	d.sharedChecks[key] = checks
	return checks
}

func (d *reader) check(c *recordv1.Check) Check {
	return Check{
		Name: d.share(c.GetName()), Kind: d.share(c.GetKind()), Endpoint: d.share(c.GetEndpoint()), Path: c.GetPath(), Service: c.GetService(),
		Send: c.GetSend(), Expect: c.GetExpect(), ServerName: c.GetServerName(), TLSSkipVerify: c.GetTlsSkipVerify(),
		IntervalSeconds: c.GetIntervalMs() / 1000, TimeoutSeconds: c.GetTimeoutMs() / 1000,
		Rise: c.GetRise(), Fall: c.GetFall(), Initial: Status(c.GetInitial()).String(),
	}
}

// unreadable says why a stored check cannot be understood, or nothing.
func (c *Check) unreadable() string {
	if !slices.Contains(checkKinds[:], c.Kind) || statusCalled(c.Initial) == 0 {
		return "has a check of a kind that this version does not know: run a newer version"
	}
	return ""
}

// Instance is an instance as readers see it; nil when there is none.
func (m *Machine) Instance(k InstanceKey) *Instance {
	i, _ := m.instance(k)
	return i
}

// Checked are the instances that have checks. Services without any are passed over.
func (m *Machine) Checked() []*Instance {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var out []*Instance
	if m.published.tally.checked == 0 {
		return nil
	}
	for _, svc := range m.published.order {
		if svc.tally.checked == 0 {
			continue
		}
		for _, i := range svc.own() {
			if len(i.Checks()) > 0 {
				out = append(out, i)
			}
		}
	}
	return out
}

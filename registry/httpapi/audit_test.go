package httpapi

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stellmap/stellmap/access/audit"
)

// diary is the audit log of a member of a test.
type diary struct {
	t   *testing.T
	log *audit.Log
	at  string
}

func newDiary(t *testing.T, change func(*audit.Config)) *diary {
	t.Helper()
	d := &diary{t: t, at: filepath.Join(t.TempDir(), "audit.log")}
	c := audit.Config{File: d.at, BytesMax: 1 << 20, Keep: 1}
	if change != nil {
		change(&c)
	}
	var err error
	if d.log, err = audit.Open(c); err != nil {
		t.Fatal(err)
	}
	return d
}

// hashes and what else differs from run to run.
var variable = regexp.MustCompile(`"(time|prev|hash|from)":"[^"]*",?|"(seq|before|after)":[0-9]+,`)

// lines are what was recorded, but for what differs from run to run. The log ends with it.
func (d *diary) lines() []string {
	d.t.Helper()
	over, end := context.WithCancel(context.Background())
	end()
	if err := d.log.Run(over); err != nil {
		d.t.Fatal(err)
	}
	if _, err := audit.Verify([]string{d.at}, audit.Mark{}); err != nil {
		d.t.Error(err)
	}
	return strings.Split(strings.TrimSpace(variable.ReplaceAllString(d.text(), "")), "\n")[1:]
}

func (d *diary) text() string {
	d.t.Helper()
	b, err := os.ReadFile(d.at)
	if err != nil {
		d.t.Fatal(err)
	}
	return string(b)
}

const oneEndpoint = `"endpoints":[{"protocol":"http","host":"10.0.0.7","port":80}]`

// Whatever is changed is recorded, with the object, be it in the path, the body or an item of a
// batch, and so is whoever was not let. Renewals, reads and mistakes are not.
func TestWhatIsAudited(t *testing.T) {
	const at = "/api/v2/namespaces/prod/services/orders/instances/a"
	const admin = "Authorization: Bearer s3cret-of-an-operator"
	d := newDiary(t, nil)
	m := newMember(t, func(c *Config) { c.AdminToken, c.Audit = "s3cret-of-an-operator", d.log })
	m.must(http.StatusCreated, http.MethodPut, at, "{"+oneEndpoint+"}", leaseTokenHeader+": "+ownToken, "X-Request-ID: r-7")
	m.must(http.StatusOK, http.MethodPost, at+"/renew", "", leaseTokenHeader+": "+ownToken)
	m.must(http.StatusForbidden, http.MethodPost, at+"/renew", "", leaseTokenHeader+": "+ownToken+"-not")
	m.must(http.StatusForbidden, http.MethodDelete, at, "")
	m.must(http.StatusUnauthorized, http.MethodDelete, at+"?force=true", "", "Authorization: Bearer another-token-of-somebody")
	m.must(http.StatusBadRequest, http.MethodPut, at, "{}", leaseTokenHeader+": "+ownToken)
	m.must(http.StatusOK, http.MethodGet, at, "")
	m.must(http.StatusOK, http.MethodPost, at+"/drain?force=true", "", admin)
	m.must(http.StatusOK, http.MethodPost, "/api/v1/registry/register", `{"namespace":"prod","service":"pay","instanceId":"b",`+oneEndpoint+`}`)
	m.must(http.StatusOK, http.MethodPost, "/api/v1/registry/heartbeat", `{"namespace":"prod","service":"pay","instanceId":"b"}`)
	m.must(http.StatusOK, http.MethodPut, "/api/v2/namespaces/prod/services/pay/policy?dryRun=true", `{}`)
	m.must(http.StatusCreated, http.MethodPut, "/api/v2/namespaces/prod/services/pay/policy", `{}`)
	m.must(http.StatusOK, http.MethodPost, "/api/v2/batch", `{"items":[
		{"register":{"namespace":"prod","service":"orders","instanceId":"c",`+oneEndpoint+`}},
		{"renew":{"namespace":"prod","service":"orders","instanceId":"a"}},
		{"deregister":{"namespace":"prod","service":"pay","instanceId":"b"}}]}`)
	got := strings.Join(d.lines(), "\n")
	want := strings.TrimSpace(`
{"who":"anonymous","port":"http","does":"registerInstance","on":"prod/orders/a","decision":"allowed","request":"r-7",}
{"who":"anonymous","port":"http","does":"renewInstance","on":"prod/orders/a","decision":"denied","code":"wrong_lease_token",}
{"who":"anonymous","port":"http","does":"deregisterInstance","on":"prod/orders/a","decision":"denied","code":"lease_token_required",}
{"who":"anonymous","port":"http","does":"deregisterInstance","on":"prod/orders/a","decision":"denied","code":"unauthorized",}
{"who":"anonymous","token":"` + audit.TokenName("admin", "s3cret-of-an-operator") + `","port":"http","does":"drainInstance","on":"prod/orders/a","decision":"allowed",}
{"who":"anonymous","port":"http","does":"v1Register","on":"prod/pay/b","decision":"allowed",}
{"who":"anonymous","port":"http","does":"putPolicy","on":"prod/pay","decision":"allowed",}
{"who":"anonymous","port":"http","does":"registerInstance","on":"prod/orders/c","decision":"allowed",}
{"who":"anonymous","port":"http","does":"renewInstance","on":"prod/orders/a","decision":"denied","code":"lease_token_required",}
{"who":"anonymous","port":"http","does":"deregisterInstance","on":"prod/pay/b","decision":"allowed",}`)
	mustEqual(t, "the audit log", got, want)
	for _, secret := range []string{ownToken, "s3cret-of-an-operator", "another-token-of-somebody"} {
		mustEqual(t, "that a secret is in a log", strings.Contains(d.text()+m.logs.String(), secret), false)
	}
}

// With reads on those who only read are recorded as well, and pages of health are not.
func TestReadsAreAudited(t *testing.T) {
	d := newDiary(t, func(c *audit.Config) { c.Reads = true })
	m := newMember(t, func(c *Config) { c.Audit = d.log })
	m.must(http.StatusOK, http.MethodGet, "/api/v2/namespaces/prod/services", "")
	m.must(http.StatusOK, http.MethodGet, "/livez", "")
	mustEqual(t, "the audit log", strings.Join(d.lines(), "\n"), `{"who":"anonymous","port":"http","does":"listServicesOfNamespace","on":"prod","decision":"allowed",}`)
}

// Where the log is required and its file cannot be written, nothing is changed; renewals and
// reads go on.
func TestWhatCannotBeAuditedIsNotDone(t *testing.T) {
	d := newDiary(t, func(c *audit.Config) { c.Required = true })
	m := newMember(t, func(c *Config) { c.Audit = d.log })
	m.registerOwn("orders", "a")
	const at = "/api/v2/namespaces/prod/services/orders/instances/"
	for d.log.Ready() == nil { // nobody writes, so its places run out
		d.log.Record(t.Context(), audit.Entry{Does: "something"})
	}
	before := m.contents()
	w := m.must(http.StatusServiceUnavailable, http.MethodPut, at+"b", "{"+oneEndpoint+"}")
	mustEqual(t, "the code", strings.Contains(w.Body.String(), `"code":"not_audited"`), true)
	m.must(http.StatusServiceUnavailable, http.MethodPost, "/api/v1/registry/register", `{"namespace":"prod","service":"pay","instanceId":"b",`+oneEndpoint+`}`)
	mustEqual(t, "what is registered", m.contents(), before)
	m.must(http.StatusOK, http.MethodPost, at+"a/renew", "", leaseTokenHeader+": "+ownToken)
	m.must(http.StatusOK, http.MethodGet, at+"a", "")
	mustEqual(t, "that Ready says why", errors.Is(d.log.Ready(), audit.ErrUnavailable), true)
	if err := d.log.Close(); err != nil {
		t.Fatal(err)
	}
}

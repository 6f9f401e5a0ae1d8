package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stellmap/stellmap/internal/process"
)

// The contract of v1 as a client on the wire sees it: what is sent and what comes
// back are texts, held against what the contract of the existing SDKs says. Nothing
// here knows how a member makes its answers.
//
// One test has one cluster for all of it, since the keepalive, the SDKs' time-outs
// and the outages take their time anyway; it is open to others meanwhile.
func TestTheContractOfV1(t *testing.T) {
	t.Parallel() // it waits most of its time
	w := &wire{t: t, cluster: newClusterWith(t, 3, keepFew(t, v1Kept)), began: time.Now(), streams: &http.Client{Transport: &http.Transport{}}}
	t.Cleanup(w.streams.CloseIdleConnections)
	w.stays = w.members[w.leader(w.members...).id%len(w.members)]
	silent := w.watch(w.stays, "namespace=silent&includeSnapshot=false")
	sdks := startSDKs(w)

	for _, c := range []struct {
		name string
		run  func(*wire)
	}{
		{"calls", (*wire).calls},
		{"refusals", (*wire).refusals},
		{"queries", (*wire).queries},
		{"frames", (*wire).frames},
		{"several events of one entry", (*wire).severalEvents},
		{"who watches", (*wire).whoWatches},
		{"start rules", (*wire).startRules},
		{"one that lags waits", (*wire).lagging},
		{"another member after a kill", (*wire).anotherMember},
		{"no leader", (*wire).noLeader},
		{"the SDKs have missed nothing", sdks.mustKnowAll},
		{"start rules where the history is gone", (*wire).startRulesCompacted},
		{"keepalive", func(w *wire) { silent.mustBe(w.t, ": keepalive\n\n") }},
	} {
		passed := t.Run(c.name, func(t *testing.T) {
			mine := *w
			mine.t = t
			c.run(&mine)
		})
		if !passed {
			return // what follows stands on it
		}
	}
}

// The parts of an instance that has everything, as the SDKs send it.
const (
	cartRef  = `"namespace":"calls","service":"acme.shop.checkout.cart.api","organization":"acme","businessDomain":"shop","capabilityDomain":"checkout","application":"cart","role":"api","instanceId":"cart-7"`
	cartRest = `"zone":"z1","labels":{"track":"canary"},"metadata":{"build":"91f2"},"endpoints":[{"name":"http","protocol":"http","host":"10.1.0.7","port":8080,"path":"/v1","weight":100}],"leaseTtlSeconds":`
	cartSeen = `"registeredAtUnix":@,"lastHeartbeatUnix":@`
)

// calls: each is done and answered at any member, with the same bytes.
func (w *wire) calls() {
	list := func(m *member, query, instances string) {
		w.t.Helper()
		s := w.send(m, http.MethodGet, v1Path+"instances?"+query, "")
		if want := `{"code":"ok","data":[` + instances + `]}`; s.status != http.StatusOK || s.kind != "application/json" || s.body != want {
			w.t.Fatalf("the list with %s is %d %s %s, want %s", query, s.status, s.kind, s.body, want)
		}
	}
	for i, m := range w.members { // a follower does a write itself: no SDK has to find the leader
		next := w.members[(i+1)%len(w.members)]
		list(m, "namespace=calls", "")
		w.write(m, "register", "{"+cartRef+","+cartRest+"30}", registered)
		list(next, "namespace=calls", "{"+cartRef+","+cartRest+"30,"+cartSeen+"}")
		w.write(m, "heartbeat", "{"+cartRef+`,"leaseTtlSeconds":0}`, heartbeaten) // Java writes the field always: 0 keeps
		list(next, "namespace=calls", "{"+cartRef+","+cartRest+"30,"+cartSeen+"}")
		w.write(m, "heartbeat", "{"+cartRef+`,"leaseTtlSeconds":60}`, heartbeaten)
		list(next, "namespace=calls", "{"+cartRef+","+cartRest+"60,"+cartSeen+"}")
		w.write(m, "heartbeat", "{"+cartRef+"}", heartbeaten)
		w.write(m, "deregister", "{"+cartRef+"}", deregistered)
		w.write(next, "deregister", "{"+cartRef+"}", deregistered) // of what is not there, too
	}
	// What is left out, and what is not quite clean.
	w.write(w.members[0], "register", `{"namespace":" calls ","organization":"acme","businessDomain":"shop","capabilityDomain":"checkout","application":"cart","role":"api","instanceId":"x",`+
		`"labels":{" a ":" b ","":"c"},"endpoints":[{"protocol":"http","host":"10.0.0.1","port":65535,"weight":0},{"protocol":"grpc","host":"10.0.0.1","port":1,"weight":7}]}`, registered)
	list(w.members[1], "namespace=calls", `{`+strings.Replace(cartRef, "cart-7", "x", 1)+`,"labels":{"a":"b"},"endpoints":[{"name":"http","protocol":"http","host":"10.0.0.1","port":65535,"weight":100},`+
		`{"name":"grpc","protocol":"grpc","host":"10.0.0.1","port":1,"weight":7}],"leaseTtlSeconds":30,`+cartSeen+`}`)
	list(w.members[1], "namespace=calls&endpoint=grpc", `{`+strings.Replace(cartRef, "cart-7", "x", 1)+`,"labels":{"a":"b"},"endpoints":[`+
		`{"name":"grpc","protocol":"grpc","host":"10.0.0.1","port":1,"weight":7}],"leaseTtlSeconds":30,`+cartSeen+`}`)
}

// mustRefuse sees that an answer is an error with the keys that Java knows, and names what is wrong.
func (w *wire) mustRefuse(what string, s said, status int, code, names string) {
	w.t.Helper()
	var body struct {
		Code       string  `json:"code"`
		Message    string  `json:"message"`
		RequestID  *string `json:"requestId"`
		LeaderID   *int64  `json:"leaderId"`
		LeaderAddr *string `json:"leaderAddr"`
	}
	strict := json.NewDecoder(strings.NewReader(s.body))
	strict.DisallowUnknownFields()
	if err := strict.Decode(&body); err != nil || s.status != status || s.kind != "application/json" || body.Code != code || !strings.Contains(body.Message, names) {
		w.t.Errorf("%s is answered %d %s %s (%v), want %d with code %s and a message that names %q", what, s.status, s.kind, s.body, err, status, code, names)
	}
	if body.LeaderID != nil || body.LeaderAddr != nil {
		w.t.Errorf("%s is answered with a leader to go to: %s", what, s.body)
	}
}

// refusals: what is wrong is named, and has changed nothing.
func (w *wire) refusals() {
	m := w.members[2]
	const ref, ends = `"namespace":"refused","service":"s","instanceId":"i"`, `"endpoints":[{"protocol":"http","host":"10.0.0.1","port":80}]`
	for body, names := range map[string]string{
		`{`: "",
		`{` + ref + `,` + ends + `,"color":"red"}`:              "color",
		`{"service":"s","instanceId":"i",` + ends + `}`:         "namespace",
		`{"namespace":"refused","instanceId":"i",` + ends + `}`: "service",
		`{"namespace":"refused","service":"s",` + ends + `}`:    "instanceId",
		`{` + ref + `}`:                "endpoints",
		`{` + ref + `,"endpoints":[]}`: "endpoints",
		`{` + ref + `,"endpoints":[{"host":"10.0.0.1","port":80}]}`:                                                              "protocol",
		`{` + ref + `,"endpoints":[{"protocol":"http","port":80}]}`:                                                              "host",
		`{` + ref + `,"endpoints":[{"protocol":"http","host":"10.0.0.1","port":0}]}`:                                             "port",
		`{` + ref + `,"endpoints":[{"protocol":"http","host":"10.0.0.1","port":65536}]}`:                                         "port",
		`{` + ref + `,"endpoints":[{"protocol":"http","host":"10.0.0.1","port":80,"weight":-1}]}`:                                "weight",
		`{` + ref + `,"endpoints":[{"protocol":"http","host":"a","port":1},{"protocol":"http","host":"b","port":1}]}`:            "endpoints",
		`{` + ref + `,` + ends + `,"leaseTtlSeconds":-1}`:                                                                        "leaseTtlSeconds",
		`{` + ref + `,"role":"api",` + ends + `}`:                                                                                "organization",
		`{` + ref + `,"organization":"a","businessDomain":"b","capabilityDomain":"c","application":"d","role":"e",` + ends + `}`: "service",
	} {
		w.mustRefuse("register "+body, w.send(m, http.MethodPost, v1Path+"register", body), http.StatusBadRequest, "bad_request", names)
	}
	w.mustRefuse("a heartbeat of nobody", w.send(m, http.MethodPost, v1Path+"heartbeat", "{"+ref+"}"), http.StatusNotFound, "not_found", "i")
	w.mustRefuse("a heartbeat with a wrong TTL", w.send(m, http.MethodPost, v1Path+"heartbeat", "{"+ref+`,"leaseTtlSeconds":-1}`), http.StatusBadRequest, "bad_request", "leaseTtlSeconds")
	w.mustRefuse("deregister with a field that is unknown", w.send(m, http.MethodPost, v1Path+"deregister", "{"+ref+`,"force":true}`), http.StatusBadRequest, "bad_request", "force")
	for path, method := range map[string]string{"register": http.MethodGet, "deregister": http.MethodPut, "heartbeat": http.MethodDelete, "instances": http.MethodPost, "watch": http.MethodPost} {
		s := w.send(m, method, v1Path+path, "")
		allow := http.MethodPost
		if path == "instances" || path == "watch" {
			allow = http.MethodGet
		}
		if s.status != http.StatusMethodNotAllowed || !strings.HasPrefix(s.kind, "text/plain") || !strings.Contains(s.header.Get("Allow"), allow) {
			w.t.Errorf("%s %s is answered %d %s, Allow: %s", method, path, s.status, s.kind, s.header.Get("Allow"))
		}
	}
	for query, names := range map[string]string{
		"":                     "namespace",
		"service=s":            "namespace",
		"namespace=q&role=api": "organization",
		"namespace=q&organization=a&capabilityDomain=c": "businessDomain",
		"namespace=q&label=k%3D":                        "label",
		"namespace=q&label=%3Dv":                        "label",
		"namespace=q&label=k":                           "label",
		"namespace=q&selector=a+in+(b":                  "selector",
		"namespace=q&selector=%3Db":                     "selector",
		"namespace=q&limit=-1":                          "limit",
		"namespace=q&limit=x":                           "limit",
	} {
		for _, call := range []string{"instances?", "watch?"} {
			w.mustRefuse(call+query, w.send(m, http.MethodGet, v1Path+call+query, ""), http.StatusBadRequest, "bad_request", names)
		}
	}
	for _, query := range []string{"sinceRevision=x", "sinceRevision=-1", "sinceRevision=18446744073709551616", "includeSnapshot=maybe"} {
		name, _, _ := strings.Cut(query, "=")
		w.mustRefuse("watch?"+query, w.send(m, http.MethodGet, v1Path+"watch?namespace=q&"+query, ""), http.StatusBadRequest, "bad_request", name)
	}
	if s := w.send(m, http.MethodGet, v1Path+"instances?namespace=refused", ""); s.body != `{"code":"ok","data":[]}` {
		w.t.Errorf("what was refused is there: %s", s.body)
	}
}

var instanceIDs = regexp.MustCompile(`"instanceId":"([^"]*)"`)

// found are the ids in an answer or a frame, sorted.
func found(text string) string {
	var ids []string
	for _, part := range instanceIDs.FindAllStringSubmatch(text, -1) {
		ids = append(ids, part[1])
	}
	slices.Sort(ids)
	return strings.Join(ids, " ")
}

// queries: a list and the snapshot of a watch find the same, by every parameter.
func (w *wire) queries() {
	const http80 = `"endpoints":[{"protocol":"http","host":"10.0.0.1","port":80}`
	for _, body := range []string{
		`"service":"acme.shop.checkout.cart.api","instanceId":"a","zone":"z1","labels":{"track":"canary","tier":"web","note":"made in haste"},` + http80 + `,{"name":"rpc","protocol":"grpc","host":"10.0.0.1","port":90}]`,
		`"service":"acme.shop.checkout.cart.web","instanceId":"b","zone":"z2","labels":{"track":"stable"},` + http80 + `]`,
		`"service":"acme.shopping.x.y.api","instanceId":"c","zone":"z1",` + http80 + `]`,
		`"service":"orders","instanceId":"d","zone":"z1","labels":{"track":"canary"},` + http80 + `]`,
	} {
		w.write(w.members[0], "register", `{"namespace":"q",`+body+`,"leaseTtlSeconds":3600}`, registered)
	}
	const five = "organization=acme&businessDomain=shop&capabilityDomain=checkout&application=cart&role=api"
	for i, c := range []struct{ query, want string }{
		{"", "a b c d"},
		{"service=orders", "d"},
		{"service=orders&service=orders", "d"}, // Java says it twice
		{"service=orders&service=acme.shop.checkout.cart.api", "a d"},
		{"service=acme.shop", ""},
		{"service=acme.shop.checkout.cart.api&" + five, "a"}, // as both SDKs expand it
		{five, "a"},
		{"servicePrefix=acme.sh", "a b c"}, // it is a text
		{"servicePrefix=acme.shopping&servicePrefix=ord", "c d"},
		{"service=orders&servicePrefix=acme", ""},
		{"organization=acme", "a b c"},
		{"organization=acme&businessDomain=shop", "a b"},
		{"organization=acme&businessDomain=shop&servicePrefix=acme.shop", "a b"}, // the levels are real fields
		{"zone=z1", "a c d"},
		{"endpoint=grpc", "a"},
		{"endpoint=rpc", "a"},
		{"endpoint=http", "a b c d"},
		{"selector=track", "a b d"},
		{"selector=!track", "c"},
		{"selector=track%3Dcanary", "a d"},
		{"selector=track%3D%3Dcanary", "a d"},
		{"selector=track!%3Dcanary", "b c"},
		{"selector=track+in+(canary,stable)", "a b d"},
		{"selector=track%20notin%20(canary)", "b c"},
		{"selector=note%3Dmade+in+haste", "a"},
		{"selector=track%3Dcanary,tier%3Dweb", "a"},
		{"selector=track%3Dcanary&selector=!tier", "d"},
		{"label=track%3Dcanary", "a d"},
		{"label=track%3Dcanary&label=tier%3Dweb", "a"},
		{"limit=0", "a b c d"},
		{"zone=z1&limit=2", "a c"},
		{"unknown=1", "a b c d"}, // old clients send some
	} {
		m := w.members[i%len(w.members)]
		list := w.send(m, http.MethodGet, v1Path+"instances?namespace=q&"+c.query, "")
		s := w.watch(m, "namespace=q&"+c.query)
		frame := s.frame(w.t)
		s.close()
		if found(list.body) != c.want || found(frame) != c.want || !strings.Contains(frame, "\nevent: snapshot\n") {
			w.t.Errorf("%s finds %q and a watch %q, want %q", c.query, found(list.body), found(frame), c.want)
		}
	}
}

// frames: all kinds, byte for byte; what is no change is no frame.
func (w *wire) frames() {
	const at, service = "namespace=frames", "acme.shop.checkout.cart.api"
	ref := strings.NewReplacer("calls", "frames").Replace(cartRef)
	begin := w.watch(w.members[0], at+"&service="+service)
	begin.snapshot(w.t, "frames", service)
	begins := []*v1Stream{begin}
	for i, query := range []string{"&service=" + service + "&service=" + service, "&organization=acme", "&servicePrefix=acme&zone=z1"} {
		s := w.watch(w.members[i], at+query+"&includeSnapshot=false") // its header is here, with nothing to tell
		begins = append(begins, s)
	}
	elsewhere := w.watch(w.members[2], at+"&zone=z2&includeSnapshot=false")
	first := w.write(w.members[0], "register", "{"+ref+","+cartRest+"30}", registered).revision
	w.write(w.members[1], "heartbeat", "{"+ref+`}`, heartbeaten) // no frame
	second := w.write(w.members[1], "heartbeat", "{"+ref+`,"leaseTtlSeconds":60}`, heartbeaten).revision
	gone := w.write(w.members[2], "deregister", "{"+ref+"}", deregistered).revision
	want := []string{
		v1UpsertFrame(first, ref, "{"+ref+","+cartRest+"30,"+cartSeen+"}"), v1UpsertFrame(second, ref, "{"+ref+","+cartRest+"60,"+cartSeen+"}"), v1DeleteFrame(gone, ref),
	}
	for _, s := range begins {
		s.mustBe(w.t, want...)
	}
	_, at2 := w.register(w.members[0], "frames", "plain", "p", 80) // in no zone
	moved := w.write(w.members[0], "register", `{"namespace":"frames","service":"plain","instanceId":"p","zone":"z2","endpoints":[{"protocol":"http","host":"10.0.0.1","port":80}],"leaseTtlSeconds":3600}`, registered).revision
	_, away := w.register(w.members[0], "frames", "plain", "p", 81)
	// One that was never sent is not taken back, and one that leaves the zone is.
	shown := strings.Replace(v1Shown("frames", "plain", "p", 80), `"endpoints"`, `"zone":"z2","endpoints"`, 1)
	elsewhere.mustBe(w.t, v1UpsertFrame(moved, v1Ref("frames", "plain", "p"), shown), v1DeleteFrame(away, v1Ref("frames", "plain", "p")))
	all := w.watch(w.members[1], at)
	if revision := all.snapshot(w.t, "frames", "", v1Shown("frames", "plain", "p", 81)); revision < away || revision < at2 {
		w.t.Errorf("the snapshot is of revision %d, before %d", revision, away)
	}
}

// severalEvents: from each of them a client can go on, and misses none.
func (w *wire) severalEvents() {
	const ids = 4
	query := "namespace=several&service=s"
	s := w.watch(w.members[0], query+"&includeSnapshot=false")
	var items, frames []string
	for i := range ids {
		items = append(items, fmt.Sprintf(`{"register":{"namespace":"several","service":"s","instanceId":"i%d","endpoints":[{"protocol":"http","host":"10.0.0.1","port":80}],"leaseTtlSeconds":3600}}`, i))
	}
	batch := w.send(w.members[1], http.MethodPost, "/api/v2/batch", `{"items":[`+strings.Join(items, ",")+`]}`)
	if batch.status != http.StatusOK || strings.Count(batch.body, `"status":"created"`) != ids {
		w.t.Fatalf("the batch is answered %d %s", batch.status, batch.body)
	}
	at := batch.revision
	for i := range ids {
		safe := at - 1 // there is more of the revision
		if i == ids-1 {
			safe = at
		}
		id := fmt.Sprint("i", i)
		frames = append(frames, v1UpsertFrame(safe, v1Ref("several", "s", id), v1Shown("several", "s", id, 80)))
	}
	s.mustBe(w.t, frames...)
	next, _ := w.register(w.members[2], "several", "s", "next", 80)
	for i, m := range w.members { // the same bytes at each
		since := at - 1
		w.watch(m, fmt.Sprintf("%s&sinceRevision=%d&includeSnapshot=false", query, since)).mustBe(w.t, append(slices.Clone(frames), next)...)
		w.watch(m, fmt.Sprintf("%s&sinceRevision=%d&includeSnapshot=%v", query, at, i%2 == 0)).mustBe(w.t, next)
	}
}

// whoWatches: who says who it is, in whatever form, watches as who does not.
func (w *wire) whoWatches() {
	frame, _ := w.register(w.members[0], "who", "s", "i", 80)
	since := frame[len("id: "):strings.Index(frame, "\n")]
	second, _ := w.register(w.members[0], "who", "s", "i", 81)
	query := "namespace=who&service=s&sinceRevision=" + since
	for _, as := range [][]string{
		{"", "X-StellMap-Caller-Namespace", "prod", "X-StellMap-Caller-Service", "web", "User-Agent", "stellmap-go-sdk"},
		{"", "X-StellMap-Caller-Organization", "acme", "X-StellMap-Caller-Business-Domain", "shop", "X-StellMap-Caller-Capability-Domain", "c", "X-StellMap-Caller-Application", "a", "X-StellMap-Caller-Role", "r"},
		{"", "X-Caller-Namespace", "prod", "X-Caller-Service", "web"},
		{"&callerNamespace=prod&callerService=web&callerOrganization=a&callerBusinessDomain=b&callerCapabilityDomain=c&callerApplication=d&callerRole=e"},
		{"", "Authorization", "Bearer something"},
		{"", "Cache-Control", "no-cache", "Connection", "keep-alive"}, // Java
	} {
		s := w.watch(w.members[1], query+as[0], as[1:]...)
		s.mustBe(w.t, second)
		s.close()
	}
}

// startRules: the table of the contract, row by row, but for what the history no longer has.
func (w *wire) startRules() {
	const query = "namespace=start&service=orders"
	f1, r1 := w.register(w.members[0], "start", "orders", "a", 80)
	f2, r2 := w.register(w.members[0], "start", "orders", "b", 80)
	f3, r3 := w.deregister(w.members[0], "start", "orders", "a")
	b := v1Shown("start", "orders", "b", 80)
	type row struct {
		query    string
		snapshot bool // comes first
		replayed []string
	}
	rows := []row{
		{"", true, nil},
		{"&includeSnapshot=true", true, nil},
		{"&sinceRevision=0", true, nil},
		{"&sinceRevision=0&includeSnapshot=1", true, nil},
		{"&includeSnapshot=false", false, nil},
		{"&sinceRevision=0&includeSnapshot=f", false, nil},
	}
	future := r3 + 1<<20
	for _, include := range []string{"", "&includeSnapshot=true", "&includeSnapshot=T"} {
		rows = append(rows, row{fmt.Sprintf("&sinceRevision=%d%s", future, include), true, nil},
			row{fmt.Sprintf("&sinceRevision=%d%s", uint64(1)<<63-1, include), true, nil})
	}
	for _, include := range []string{"", "&includeSnapshot=true", "&includeSnapshot=false"} {
		rows = append(rows, row{fmt.Sprintf("&sinceRevision=1%s", include), false, []string{f1, f2, f3}}, // all that is kept
			row{fmt.Sprintf("&sinceRevision=%d%s", r1, include), false, []string{f2, f3}},
			row{fmt.Sprintf("&sinceRevision=%d%s", r2, include), false, []string{f3}},
			row{fmt.Sprintf("&sinceRevision=%d%s", r3, include), false, nil})
	}
	open := make([]*v1Stream, len(rows))
	for i, r := range rows {
		s := w.watch(w.members[i%len(w.members)], query+r.query)
		if r.snapshot {
			if at := s.snapshot(w.t, "start", "orders", b); at < r3 {
				w.t.Errorf("%s: the snapshot is of revision %d, and %d was acknowledged", r.query, at, r3)
			}
		}
		s.mustBe(w.t, r.replayed...)
		open[i] = s
	}
	for _, m := range w.members {
		s := w.send(m, http.MethodGet, v1Path+"watch?"+query+fmt.Sprintf("&sinceRevision=%d&includeSnapshot=false", future), "")
		w.mustRefuse("a watch of the future", s, http.StatusGone, "revision_expired", "")
	}
	live, _ := w.register(w.members[1], "start", "orders", "c", 80) // all are told of it, and of nothing before it
	for i, s := range open {
		if got := s.frame(w.t); got != live {
			w.t.Errorf("%s goes on with\n%swant\n%s", rows[i].query, got, live)
		}
		s.close()
	}
}

// lagging: a member that has not come so far is no reason for a snapshot, nor for 410.
func (w *wire) lagging() {
	leader := w.leader(w.members...)
	behind := w.members[leader.id%len(w.members)]
	if err := behind.proc.Signal(syscall.SIGSTOP); err != nil {
		w.t.Fatal(err)
	}
	frame, at := w.register(leader, "lag", "s", "i", 80)
	type opened struct {
		stream *v1Stream
		err    error
	}
	both := make(chan opened, 2)
	for _, include := range []string{"true", "false"} { // they wait until it goes on
		go func() {
			s, err := w.open(behind, fmt.Sprintf("namespace=lag&sinceRevision=%d&includeSnapshot=%s", at, include))
			both <- opened{s, err}
		}()
	}
	if err := behind.proc.Signal(syscall.SIGCONT); err != nil {
		w.t.Fatal(err)
	}
	first, second := <-both, <-both
	if err := errors.Join(first.err, second.err); err != nil {
		w.t.Fatal(err)
	}
	next, _ := w.deregister(leader, "lag", "s", "i")
	first.stream.mustBe(w.t, next)
	second.stream.mustBe(w.t, next)
	w.watch(behind, fmt.Sprintf("namespace=lag&sinceRevision=%d", at-1)).mustBe(w.t, frame, next)
}

// anotherMember: a client whose member has died goes on at the others, and at the member when it is back.
func (w *wire) anotherMember() {
	const query = "namespace=move&service=s"
	others := slices.DeleteFunc(slices.Clone(w.members), func(m *member) bool { return m == w.stays })
	dies := others[0]
	if leads := w.leader(w.members...); leads != w.stays {
		dies = leads
	}
	others = slices.DeleteFunc(slices.Clone(w.members), func(m *member) bool { return m == dies })
	s := w.watch(dies, query)
	s.snapshot(w.t, "move", "s")
	f1, at := w.register(dies, "move", "s", "a", 80)
	s.mustBe(w.t, f1)
	w.kill(dies)
	for {
		if _, err := s.lines.ReadString('\n'); err != nil { // it has ended, and its client knows the last id
			break
		}
	}
	if _, err := process.Within(w.t.Context(), readyTime, "another leader", func() error {
		if found, err := w.findLeader(others...); err != nil || found == dies {
			return errors.Join(errors.New("it is the one that was killed still"), err)
		}
		return nil
	}); err != nil {
		w.t.Fatal(err)
	}
	f2, _ := w.register(others[0], "move", "s", "b", 80)
	f3, _ := w.deregister(others[1], "move", "s", "a")
	for _, include := range []string{"true", "false"} {
		for _, m := range others {
			w.watch(m, fmt.Sprintf("%s&sinceRevision=%d&includeSnapshot=%s", query, at, include)).mustBe(w.t, f2, f3)
		}
	}
	w.start(dies)
	w.mustBeReady()
	w.watch(dies, fmt.Sprintf("%s&sinceRevision=%d&includeSnapshot=false", query, at)).mustBe(w.t, f2, f3)
}

// startRulesCompacted: the rows for a revision that the history no longer goes back to.
func (w *wire) startRulesCompacted() {
	const query = "namespace=old&service=orders"
	_, r1 := w.register(w.members[0], "old", "orders", "a", 80)
	_, r2 := w.register(w.members[0], "old", "orders", "b", 80)
	w.cluster.mustTurnOver(r2)
	shown := []string{v1Shown("old", "orders", "a", 80), v1Shown("old", "orders", "b", 80)}
	for i, include := range []string{"", "&includeSnapshot=true", "&includeSnapshot=1"} { // never 410: the Go SDK would ask for ever
		s := w.watch(w.members[i], fmt.Sprintf("%s&sinceRevision=%d%s", query, r1, include))
		if at := s.snapshot(w.t, "old", "orders", shown...); at < r2 {
			w.t.Errorf("the snapshot is of revision %d", at)
		}
		next, _ := w.register(w.members[i], "old", "orders", "b", 80+i+1)
		s.mustBe(w.t, next)
		shown[1] = v1Shown("old", "orders", "b", 80+i+1)
	}
	for _, m := range w.members {
		s := w.send(m, http.MethodGet, v1Path+"watch?"+query+fmt.Sprintf("&sinceRevision=%d&includeSnapshot=false", r1), "")
		w.mustRefuse("a watch from where the history is gone", s, http.StatusGone, "revision_expired", "")
	}
	java := &javaWatch{w: w, query: "namespace=old&service=orders&service=orders", directory: v1Directory{"orders": {"gone": 1}}, last: r1}
	if err := java.connect(w.members[0]); !errors.Is(err, errExpired) {
		w.t.Errorf("the Java SDK is not told that it has to begin anew: %v", err)
	}
	java.cut = sdkPause
	w.comesLevel("Java", func() (v1Directory, error) {
		err := java.connect(w.members[1])
		return java.directory, err
	}, v1Directory{"orders": {"a": 80, "b": 83}})
	if java.cleared != 1 {
		w.t.Errorf("the Java SDK clears its directory %d times after 410", java.cleared)
	}
}

// noLeader: without one a write is refused in a moment, well within the SDKs' time, with
// nobody to be sent to; so is a watch that would begin anew, and one that goes on is not.
func (w *wire) noLeader() {
	frame, at := w.register(w.stays, "alone", "s", "i", 80)
	left := w.stays
	others := slices.DeleteFunc(slices.Clone(w.members), func(m *member) bool { return m == left })
	w.kill(others...)
	for call, body := range map[string]string{"register": v1Plain("alone", "s", "j", 80), "deregister": "{" + v1Ref("alone", "s", "i") + "}", "heartbeat": "{" + v1Ref("alone", "s", "i") + "}"} {
		var s said
		if _, err := process.Within(w.t.Context(), readyTime, "the last member to notice", func() error {
			if s = w.send(left, http.MethodPost, v1Path+call, body); strings.Contains(s.body, "leaderAddr") || !strings.Contains(s.body, "not_leader") {
				return errors.New(s.body)
			}
			return nil
		}); err != nil {
			w.t.Fatal(err)
		}
		w.mustRefuse(call+" without a leader", s, http.StatusServiceUnavailable, "not_leader", "")
		if s.header.Get("Retry-After") == "" {
			w.t.Errorf("%s without a leader is answered without Retry-After", call)
		}
	}
	w.mustRefuse("a watch from now on", w.send(left, http.MethodGet, v1Path+"watch?namespace=alone", ""), http.StatusServiceUnavailable, "not_leader", "")
	w.watch(left, fmt.Sprintf("namespace=alone&sinceRevision=%d&includeSnapshot=false", at-1)).mustBe(w.t, frame)
	for _, m := range others {
		w.start(m)
	}
	w.mustBeReady()
}

package e2e

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stellmap/stellmap/internal/process"
)

// What the existing SDKs do with a watch, as far as their behaviour is documented.
// Neither of them can be changed, and each has its trap: Java takes no key that it
// does not know, cuts every watch after five seconds and clears its directory after a
// 410; Go asks for ever when it is answered 410.

const (
	javaCallTime = 5 * time.Second // of every call, watches included
	sdkPause     = time.Second     // before a watch is opened again
)

// v1Directory is what a client knows: the port of each instance of each service.
type v1Directory map[string]map[string]int32

func (d v1Directory) equal(other v1Directory) bool {
	return maps.EqualFunc(d, other, maps.Equal[map[string]int32, map[string]int32])
}

// v1Event is the data of a frame with the keys and types that Java has, and no other.
type v1Event struct {
	Revision         int64        `json:"revision"`
	Type             string       `json:"type"`
	Namespace        string       `json:"namespace"`
	Service          string       `json:"service"`
	Organization     string       `json:"organization"`
	BusinessDomain   string       `json:"businessDomain"`
	CapabilityDomain string       `json:"capabilityDomain"`
	Application      string       `json:"application"`
	Role             string       `json:"role"`
	InstanceID       string       `json:"instanceId"`
	Instance         *v1Instance  `json:"instance"`
	Instances        []v1Instance `json:"instances"`
}

type v1Instance struct {
	Namespace         string            `json:"namespace"`
	Service           string            `json:"service"`
	Organization      string            `json:"organization"`
	BusinessDomain    string            `json:"businessDomain"`
	CapabilityDomain  string            `json:"capabilityDomain"`
	Application       string            `json:"application"`
	Role              string            `json:"role"`
	InstanceID        string            `json:"instanceId"`
	Zone              string            `json:"zone"`
	Labels            map[string]string `json:"labels"`
	Metadata          map[string]string `json:"metadata"`
	Endpoints         []v1Endpoint      `json:"endpoints"`
	LeaseTTLSeconds   int64             `json:"leaseTtlSeconds"`
	RegisteredAtUnix  int64             `json:"registeredAtUnix"`
	LastHeartbeatUnix int64             `json:"lastHeartbeatUnix"`
}

type v1Endpoint struct {
	Name     string `json:"name"`
	Protocol string `json:"protocol"`
	Host     string `json:"host"`
	Port     int32  `json:"port"`
	Path     string `json:"path"`
	Weight   int32  `json:"weight"`
}

// take does what both SDKs do with an event. A snapshot replaces the services that it
// has; a service that it does not have stays.
func (d v1Directory) take(e *v1Event) error {
	switch e.Type {
	case "snapshot":
		if e.Service != "" {
			d[e.Service] = map[string]int32{}
		}
		for _, i := range e.Instances {
			if e.Service == "" {
				d[i.Service] = map[string]int32{}
			}
		}
		for _, i := range e.Instances {
			d[i.Service][i.InstanceID] = i.Endpoints[0].Port
		}
	case "upsert":
		if d[e.Service] == nil {
			d[e.Service] = map[string]int32{}
		}
		d[e.Service][e.InstanceID] = e.Instance.Endpoints[0].Port
	case "delete":
		delete(d[e.Service], e.InstanceID)
	default:
		return fmt.Errorf("the type of %+v is unknown", e)
	}
	return nil
}

// readFrame reads a frame by its lines. A comment has neither event nor data.
func readFrame(lines *bufio.Reader) (event string, data []byte, err error) {
	for {
		line, err := lines.ReadString('\n')
		switch {
		case err != nil:
			return "", nil, err
		case line == "\n":
			return event, data, nil
		case strings.HasPrefix(line, "event: "):
			event = strings.TrimSpace(line[len("event: "):])
		case strings.HasPrefix(line, "data: "):
			data = []byte(line[len("data: "):])
		}
	}
}

// javaWatch is the watch of the Java SDK.
type javaWatch struct {
	w         *wire
	query     string
	directory v1Directory
	last      uint64
	cleared   int
	opened    atomic.Int64
	cut       time.Duration // 0 = after its call time-out
}

// errNoHeader is the SDK's time-out before it had the header of a watch.
var errNoHeader = errors.New("the call ended before the header of the watch had come")

// connect is one call, until it is cut; errExpired says that it was answered 410.
func (j *javaWatch) connect(m *member) error {
	client := &http.Client{Timeout: cmp.Or(j.cut, javaCallTime), Transport: j.w.streams.Transport}
	query := j.query + "&includeSnapshot=true"
	if j.last > 0 {
		query = fmt.Sprintf("%s&sinceRevision=%d&includeSnapshot=false", j.query, j.last)
	}
	r, err := client.Get(m.url() + v1Path + "watch?" + query)
	if err != nil {
		return errors.Join(errNoHeader, err)
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return j.refused(r)
	}
	j.opened.Add(1)
	for lines := bufio.NewReader(r.Body); ; {
		_, data, err := readFrame(lines)
		if err != nil {
			return nil // it is opened again
		}
		if data == nil {
			continue
		}
		var e v1Event
		strict := json.NewDecoder(strings.NewReader(string(data)))
		strict.DisallowUnknownFields()
		if err := strict.Decode(&e); err != nil {
			return fmt.Errorf("an event that it drops, %s: %w", data, err)
		}
		if err := j.directory.take(&e); err != nil {
			return err
		}
		j.last = uint64(e.Revision)
	}
}

var errExpired = errors.New("410: it clears its directory")

func (j *javaWatch) refused(r *http.Response) error {
	text, err := io.ReadAll(r.Body)
	var body struct{ Code, Message string }
	strict := json.NewDecoder(strings.NewReader(string(text)))
	strict.DisallowUnknownFields()
	if err := errors.Join(err, strict.Decode(&body)); err != nil {
		return fmt.Errorf("%d with a body that it cannot read, %s: %w", r.StatusCode, text, err)
	}
	if body.Code == "revision_expired" {
		j.last, j.directory = 0, v1Directory{}
		j.cleared++
		return errExpired
	}
	return fmt.Errorf("answered %d %s", r.StatusCode, text)
}

// goWatch is the watch of the Go SDK.
type goWatch struct {
	w         *wire
	query     string
	directory v1Directory
	last      uint64
	opened    atomic.Int64
}

// connect is one stream, which is not bound in time.
func (g *goWatch) connect(ctx context.Context, m *member) error {
	query := g.query
	if g.last > 0 {
		query = fmt.Sprintf("%s&sinceRevision=%d&includeSnapshot=true", query, g.last)
	}
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, m.url()+v1Path+"watch?"+query, nil)
	if err != nil {
		return err
	}
	q.Header.Set("Accept", "text/event-stream")
	q.Header.Set("X-StellMap-Caller-Namespace", "sdk")
	q.Header.Set("X-StellMap-Caller-Service", "go")
	r, err := g.w.streams.Do(q)
	if err != nil {
		return nil // it is opened again
	}
	defer r.Body.Close()
	switch r.StatusCode {
	case http.StatusOK:
	case http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return nil
	default:
		return fmt.Errorf("answered %d: the watcher ends, or asks for ever", r.StatusCode)
	}
	g.opened.Add(1)
	for lines := bufio.NewReader(r.Body); ; {
		event, data, err := readFrame(lines)
		if err != nil {
			return nil
		}
		if event == "" {
			continue // it skips a message without the line
		}
		var e v1Event
		if err := json.Unmarshal(data, &e); err != nil {
			return err
		}
		if err := g.directory.take(&e); err != nil {
			return err
		}
		g.last = uint64(e.Revision)
	}
}

// sdks are clients of both kinds that watch for as long as the test goes on, while a
// service changes. What stands in front of the members leads them to any of them.
type sdks struct {
	w       *wire
	random  *rand.Rand
	cancel  context.CancelFunc
	running sync.WaitGroup
	java    *javaWatch
	golang  *goWatch
	last    *sdkWriter

	mu       sync.Mutex // guards what follows
	problems []error
}

const sdkService = "sdk.test.watch.every.thing"

// sdkQuery is what both make of the name.
const sdkQuery = "namespace=sdk&service=" + sdkService + "&organization=sdk&businessDomain=test&capabilityDomain=watch&application=every&role=thing"

func startSDKs(w *wire) *sdks {
	ctx, cancel := context.WithCancel(w.cluster.t.Context())
	s := &sdks{
		w: w, random: seed(w.cluster.t), cancel: cancel, last: &sdkWriter{},
		java:   &javaWatch{w: w, query: sdkQuery + "&service=" + sdkService, directory: v1Directory{}},
		golang: &goWatch{w: w, query: sdkQuery, directory: v1Directory{}},
	}
	w.cluster.t.Cleanup(func() { cancel(); s.running.Wait() })
	pick := func(random *rand.Rand) *member { return w.members[random.IntN(len(w.members))] }
	mine := [3]*rand.Rand{}
	for i := range mine {
		mine[i] = rand.New(rand.NewPCG(s.random.Uint64(), s.random.Uint64()))
	}
	s.running.Go(func() {
		for ; ctx.Err() == nil; rest(ctx, sdkPause) {
			s.note("Java", s.java.connect(pick(mine[0])))
		}
	})
	s.running.Go(func() {
		for ; ctx.Err() == nil; rest(ctx, sdkPause) {
			stream, leave := context.WithTimeout(ctx, time.Duration(1+mine[1].IntN(4))*time.Second) // a proxy cuts it
			s.note("Go", s.golang.connect(stream, pick(mine[1])))
			leave()
		}
	})
	s.running.Go(func() { s.last.write(ctx, w.cluster, mine[2]) })
	return s
}

// note keeps what must not be. A member that is killed is no fault of its watch.
func (s *sdks) note(who string, err error) {
	if err == nil || errors.Is(err, errNoHeader) && regexp.MustCompile("refused|reset|EOF").MatchString(err.Error()) {
		return
	}
	if text := err.Error(); strings.Contains(text, "answered 503") {
		return // it has been started again, and is not ready: it is opened again
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.problems = append(s.problems, fmt.Errorf("%s: %w", who, err))
}

// sdkWriter changes what they watch, in order.
type sdkWriter struct {
	mu    sync.Mutex // guards what follows
	knows v1Directory
	at    uint64
}

const sdkBeat = 50 * time.Millisecond

func (s *sdkWriter) write(ctx context.Context, c *cluster, random *rand.Rand) {
	known := map[string]int32{}
	for n := int32(1); ctx.Err() == nil; n++ {
		id := fmt.Sprint("i", random.IntN(8))
		call, body := "register", v1Plain("sdk", sdkService, id, int(n%60000+1))
		if random.IntN(3) == 0 {
			call, body = "deregister", "{"+v1Ref("sdk", sdkService, id)+"}"
		}
		for { // nothing else writes it: once more does no harm
			a, err := c.call(context.WithoutCancel(ctx), http.MethodPost, c.members[random.IntN(len(c.members))].url()+v1Path+call, body)
			if err == nil && a.status == http.StatusOK {
				if call == "register" {
					known[id] = n%60000 + 1
				} else {
					delete(known, id)
				}
				s.mu.Lock()
				s.knows, s.at = v1Directory{sdkService: maps.Clone(known)}, a.revision
				s.mu.Unlock()
				break
			}
			if c.t.Context().Err() != nil {
				return
			}
			rest(c.t.Context(), tryRest) // not ctx: what may have happened is done to the end
		}
		rest(ctx, sdkBeat)
	}
}

// mustKnowAll lets both clients come to rest and holds what they know against what was written.
func (s *sdks) mustKnowAll(w *wire) {
	_, err := process.Within(w.t.Context(), readyTime, "both SDKs to come back", func() error {
		if java, golang := s.java.opened.Load(), s.golang.opened.Load(); java < 2 || golang < 2 {
			return fmt.Errorf("the Java SDK has opened %d watches, the Go SDK %d", java, golang)
		}
		return nil
	})
	if err != nil {
		w.t.Error(err)
	}
	s.cancel()
	s.running.Wait()
	for _, problem := range s.problems {
		w.t.Error(problem)
	}
	if s.java.cleared != 0 {
		w.t.Errorf("the Java SDK has cleared its directory %d times", s.java.cleared)
	}
	s.java.cut = sdkPause
	w.comesLevel("Java", func() (v1Directory, error) {
		err := s.java.connect(w.members[0])
		return s.java.directory, err
	}, s.last.knows)
	w.comesLevel("Go", func() (v1Directory, error) {
		level, cancel := context.WithTimeout(w.t.Context(), sdkPause)
		defer cancel()
		err := s.golang.connect(level, w.members[1])
		return s.golang.directory, err
	}, s.last.knows)
}

// comesLevel has a client open its watch, which is cut after a while, until it knows what was written. What it
// was not told in one that did it is not told in the next, which goes on from there.
func (w *wire) comesLevel(who string, connect func() (v1Directory, error), want v1Directory) {
	w.t.Helper()
	if _, err := process.Within(w.t.Context(), readyTime, "the "+who+" SDK to know all", func() error {
		knows, err := connect()
		switch {
		case err != nil && !errors.Is(err, errNoHeader):
			w.t.Fatalf("%s: %v", who, err)
		case err == nil && !knows.equal(want):
			err = fmt.Errorf("it knows %v, and it is %v", knows, want)
		}
		return err
	}); err != nil {
		w.t.Error(err)
	}
}

package httpapi

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/stellmap/stellmap/registry"
)

func (a *API) v2Routes() []route {
	const (
		namespace = "/api/v2/namespaces/{ns}"
		service   = namespace + "/services/{svc}"
		instance  = service + "/instances/{id}"
	)
	write := func(method, pattern string, serve handler) route {
		return route{method: method, pattern: pattern, surface: surfaceV2, serve: conditionless(serve)}
	}
	read := func(pattern string, serve handler) route {
		return route{method: http.MethodGet, pattern: pattern, surface: surfaceV2, reads: true, serve: conditionless(serve)}
	}
	return append(slices.Concat(a.sayRoutes(instance), a.reportRoutes(service, instance), a.leaseRoutes(), a.documentRoutes(namespace, service)),
		route{method: http.MethodPost, pattern: instance + "/renew", surface: surfaceV2, routine: true, serve: conditionless(a.v2Renew)}.as(operation{
			id: "renewInstance", says: "Says that an instance lives", query: heldQuery, headers: []string{leaseTokenHeader},
			body: v2RenewBody{}, bodiless: true, answers: ok(v2Renewed{}), refuses: []string{"not_found", "shared_lease"},
		}),
		write(http.MethodPut, instance, a.v2Register).as(operation{
			id: "registerInstance", says: "Registers an instance, or changes it", query: heldQuery, headers: heldHeaders,
			body: v2RegisterBody{}, answers: createdOr(v2Registered{}), refuses: []string{"quota_exceeded", "lease_not_found", "leases_full"},
		}),
		write(http.MethodDelete, instance, a.v2Deregister).as(operation{
			id: "deregisterInstance", says: "Removes an instance", query: heldQuery, headers: heldHeaders, answers: ok(v2Deregistered{}),
		}),
		write(http.MethodPost, "/api/v2/batch", a.v2Batch).as(operation{
			id: "batch", says: "Registers, renews and deregisters many instances, each by itself", headers: []string{idempotencyKey},
			body: v2BatchBody{}, answers: ok(v2BatchAnswer{}),
		}),
		read(instance, a.v2Instance).as(operation{
			id: "getInstance", says: "Tells an instance", query: freshQuery, answers: ok(shownInstanceFields{}), refuses: []string{"not_found"},
		}),
		read(service, a.v2Service).as(operation{
			id: "getService", says: "Tells a service", query: serviceQuery, answers: ok(shownServiceFields{}), refuses: []string{"not_found"},
		}),
		read(service+"/discovery", a.v2Discovery).as(operation{
			id: "discoverService", says: "Tells what a client at some place is given of a service, and of each region why", query: discoveryQuery,
			answers: ok(shownDiscovery{}), refuses: []string{"not_found"},
		}),
		read(service+"/instances", a.v2ServiceInstances).as(instanceList("listInstancesOfService", "Lists instances of a service, or what a client is given of it", serviceListQuery, "not_found")),
		read(namespace+"/instances", a.v2NamespaceInstances).as(instanceList("listInstancesOfNamespace", "Lists instances of a namespace", listQuery)),
		read(namespace+"/services", a.v2NamespaceServices).as(serviceList("listServicesOfNamespace", "Lists services of a namespace")),
		read("/api/v2/instances", a.v2AllInstances).as(instanceList("listInstances", "Lists instances of all namespaces", listQuery)),
		read("/api/v2/services", a.v2AllServices).as(serviceList("listServices", "Lists services of all namespaces")),
		read("/api/v2/namespaces", a.v2Namespaces).as(operation{
			id: "listNamespaces", says: "Lists namespaces", query: freshQuery, answers: ok(shownNamespaces{}),
		}),
		read("/api/v2/protections", a.v2Protections).as(operation{
			id: "listProtections", says: "Lists where nothing expires at the moment, and why", query: freshQuery, answers: ok(shownPauses{}),
		}),
		read("/api/v2/members", a.v2Members).as(operation{id: "listMembers", says: "Lists the members of the cluster", answers: ok(v2MembersAnswer{})}),
		read("/api/v2/federation", a.v2Regions).as(operation{id: "listRegions", says: "Lists the copies of other regions, and how old they are", answers: ok(v2Federation{})}),
		read("/api/v2/prometheus/sd", a.v2PrometheusTargets).as(operation{
			id: "listPrometheusTargets", says: "Lists endpoints in the form of Prometheus' HTTP service discovery", query: prometheusQuery, answers: ok([]shownTargets{}),
		}),
		route{method: http.MethodGet, pattern: "/api/v2/watch", surface: surfaceV2, reads: true, watches: true, serve: conditionless(a.v2Watch)}.as(operation{
			id: "watch", says: "Tells what changes, as server-sent events or, with wait, once", query: watchQuery, headers: []string{lastEventID},
			answers: ok(eventsAnswer{otherwise: shownPoll{}}), refuses: []string{"too_many_watches"},
		}),
	)
}

// conditionless refuses the conditions that nobody checks: a write that was to
// happen only if nothing had changed must not happen anyway.
func conditionless(serve handler) handler {
	return func(w http.ResponseWriter, q *http.Request) error {
		headers := []string{"If-Match"}
		if q.Method != http.MethodGet && q.Method != http.MethodHead { // a reader gets the whole answer, as he may
			headers = append(headers, "If-None-Match")
		}
		for _, name := range headers {
			if len(q.Header.Values(name)) > 0 {
				return invalid(name, "is not supported yet: leave the header out")
			}
		}
		return serve(w, q)
	}
}

type v2RegisterBody struct {
	levelsBody
	v2WorkloadBody
}

type v2RenewBody struct {
	LeaseTTLSeconds int64 `json:"leaseTtlSeconds"`
}

// v2Key is the name that every answer to a write begins with.
type v2Key struct {
	Namespace  string            `json:"namespace"`
	Service    string            `json:"service"`
	InstanceID string            `json:"instanceId"`
	Revision   registry.Revision `json:"revision"`
}

// pathRef is the instance that the path names.
func pathRef(q *http.Request) registry.InstanceRef {
	return registry.InstanceRef{Namespace: q.PathValue("ns"), Service: q.PathValue("svc"), ID: q.PathValue("id")}
}

// keyOf is the name in the form in which it is stored.
func keyOf(ref registry.InstanceRef, at registry.Revision) v2Key {
	return v2Key{Namespace: strings.TrimSpace(ref.Namespace), Service: strings.TrimSpace(ref.Service), InstanceID: strings.TrimSpace(ref.ID), Revision: at}
}

func (a *API) v2Register(w http.ResponseWriter, q *http.Request) error {
	ref, err := a.heldRef(w, q)
	if err != nil {
		return err
	}
	var body v2RegisterBody
	if err := decode(w, q, &body); err != nil {
		return err
	}
	registration := body.registration(ref)
	registration.Levels = body.levels()
	if strings.TrimSpace(ref.Service) == "" {
		registration.Levels = registry.Levels{} // the path must name the service, whatever the body adds
	}
	repeat, err := repeatOf(q, registration)
	if err != nil {
		return err
	}
	if registration.LeaseID == "" {
		registration.LeaseToken = repeat.Token(ref.Holder.Token, 0, a.newToken)
	}
	result, err := a.registry.Register(q.Context(), repeat.ID, registration)
	setRevision(w, result.Revision)
	if err != nil {
		return err
	}
	status := http.StatusOK
	if result.Created {
		status = http.StatusCreated
	}
	writeJSON(w, status, typeJSON, &v2Registered{keyOf(ref, result.Revision), result.Created, result.Changed, registration.LeaseToken, grantedBy(result)})
	return nil
}

// The answers to writes.
type (
	v2Registered struct {
		v2Key
		Created    bool   `json:"created"`
		Changed    bool   `json:"changed"`
		LeaseToken string `json:"leaseToken,omitempty"`
		v2Granted
	}
	v2Deregistered struct {
		v2Key
		Deleted bool `json:"deleted"`
	}
	v2Renewed struct {
		v2Key
		v2Granted
	}
)

func (a *API) v2Deregister(w http.ResponseWriter, q *http.Request) error {
	ref, err := a.heldRef(w, q)
	if err != nil {
		return err
	}
	repeat, err := repeatOf(q, ref)
	if err != nil {
		return err
	}
	result, err := a.registry.Deregister(q.Context(), repeat.ID, ref)
	setRevision(w, result.Revision)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, typeJSON, &v2Deregistered{keyOf(ref, result.Revision), result.Changed})
	return nil
}

func (a *API) v2Renew(w http.ResponseWriter, q *http.Request) error {
	ref, err := a.heldRef(w, q)
	if err != nil {
		return err
	}
	var body v2RenewBody
	if err := decodeOptional(w, q, &body); err != nil {
		return err
	}
	result, err := a.registry.Heartbeat(q.Context(), ref, body.LeaseTTLSeconds)
	setRevision(w, result.Revision)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, typeJSON, &v2Renewed{keyOf(ref, result.Revision), grantedBy(result)})
	return nil
}

// v2Granted is the TTL that a lease was given, while that is longer than its own.
type v2Granted struct {
	LeaseTTLSeconds int64 `json:"leaseTtlSeconds,omitempty"`
}

func grantedBy(r registry.Result) v2Granted { return v2Granted{int64(r.LeaseTTL.Seconds())} }

// idempotencyKey is the header that makes a repeated write one.
const idempotencyKey = "Idempotency-Key"

// repeatOf is what makes the request, repeated with the same key, one.
func repeatOf(q *http.Request, what any) (registry.Repeat, error) {
	key := q.Header.Get(idempotencyKey)
	if problem := registry.RepeatKeyProblem(key); problem != "" {
		return registry.Repeat{}, invalid(idempotencyKey, problem)
	}
	return registry.RepeatOf(key, q.Method, what), nil
}

func noParameters(q *http.Request) error {
	p := parametersOf(q)
	p.only()
	return p.err()
}

func (a *API) v2Instance(w http.ResponseWriter, q *http.Request) error {
	p := parametersOf(q)
	p.only(freshQuery...)
	fresh := p.freshness(a)
	if err := p.err(); err != nil {
		return err
	}
	i, at, err := a.registry.Get(q.Context(), pathRef(q), fresh.Consistency)
	setRevision(w, at)
	if at != 0 {
		fresh.tell(w)
	}
	if err != nil {
		return err
	}
	one := []*registry.Instance{i}
	writeList(w, "", "", one, a.instanceEncoder(q.Context(), one, instanceFields))
	return nil
}

type v2MembersAnswer struct {
	ClusterID   uint64            `json:"clusterId"`
	LocalNodeID uint64            `json:"localNodeId"`
	LeaderID    uint64            `json:"leaderId"`
	Region      string            `json:"region"`
	Term        uint64            `json:"term"`
	Revision    uint64            `json:"revision"`
	Members     []v2Member        `json:"members"`
	StateCheck  StateCheck        `json:"stateCheck"`
	Replacement *adminReplacement `json:"replacement,omitempty"`
}

type v2Member struct {
	ID    uint64 `json:"id"`
	Role  string `json:"role"`
	Voter bool   `json:"voter"`
	// Learner is sent everything and does not vote. Behind is how many entries it
	// lacks, and Heard whether it was heard lately, where the leader could be asked.
	Learner bool    `json:"learner"`
	Behind  *uint64 `json:"behindEntries,omitempty"`
	Heard   *bool   `json:"heard,omitempty"`
	Local   bool    `json:"local"`
	HTTP    string  `json:"http"`
	XDS     string  `json:"xds"`
	GRPC    string  `json:"grpc"`
	Admin   string  `json:"admin"`
}

// v2Members is what this member knows by itself: it needs no quorum. How far the
// others are only the leader knows; it is asked, for a moment.
func (a *API) v2Members(w http.ResponseWriter, q *http.Request) error {
	if err := noParameters(q); err != nil {
		return err
	}
	s := a.cluster()
	progress := a.progress(q.Context())
	members := make([]v2Member, len(s.Members))
	for i, m := range s.Members {
		members[i] = v2Member{
			ID: m.ID, Role: s.roleOf(m.ID), Voter: slices.Contains(s.Voters, m.ID) || slices.Contains(s.VotersOutgoing, m.ID), Learner: slices.Contains(s.Learners, m.ID), Local: m.ID == s.ID,
			HTTP: m.HTTP, XDS: m.XDS, GRPC: m.GRPC, Admin: m.Admin,
		}
		if p, ok := progress[m.ID]; ok {
			members[i].Behind, members[i].Heard = &p.Behind, &p.Active
		}
	}
	setRevision(w, registry.Revision(s.Applied))
	writeJSON(w, http.StatusOK, typeJSON, &v2MembersAnswer{s.ClusterID, s.ID, s.LeaderID, s.Region, s.Term, s.Applied, members, s.stateCheck(), s.adminMembers().Replacement})
	return nil
}

// progressTimeMax bounds the question to the leader: the list of members must not
// wait for one that does not answer.
const progressTimeMax = 300 * time.Millisecond

// progress is how far the members are; empty when the leader does not say.
func (a *API) progress(ctx context.Context) map[uint64]MemberProgress {
	if a.membership == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, progressTimeMax)
	defer cancel()
	list, err := a.membership.Progress(ctx)
	if err != nil {
		return nil // the list is good without it
	}
	all := make(map[uint64]MemberProgress, len(list))
	for _, p := range list {
		all[p.ID] = p
	}
	return all
}

// roleOf is a member's role as far as this one knows it.
func (s *ClusterStatus) roleOf(id uint64) string {
	switch {
	case id == s.LeaderID:
		return "leader"
	case slices.Contains(s.Learners, id):
		return "learner"
	}
	return "follower"
}

package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/stellmap/stellmap/registry"
)

// Federation is what the settings of a member say of other regions.
type Federation struct {
	registry.Neighbours

	Following func(context.Context) Following // asks the leader how they are followed; nil = nobody knows
}

type v2Federation struct {
	Region     string        `json:"region"`               // the own one
	FollowedBy *v2FollowedBy `json:"followedBy,omitempty"` // absent where the settings name no region
	Regions    []v2Region    `json:"regions"`
}

// v2Region is the copy of a region, as this member has it.
type v2Region struct {
	Region      string            `json:"region"`
	ClusterID   uint64            `json:"clusterId"`
	Configured  bool              `json:"configured"` // this member's settings name it
	Connected   bool              `json:"connected"`  // it was confirmed lately how far it has told
	Paused      bool              `json:"paused"`
	AgeMs       *int64            `json:"ageMs,omitempty"` // all that it had committed so long ago is in the copy; absent = that was never confirmed
	Incarnation string            `json:"incarnation"`     // "" = nothing was told
	Revision    registry.Revision `json:"revision"`        // the region's own; 0 while all there is is told
	FullSync    bool              `json:"fullSync"`        // it is being told all there is
	Instances   int               `json:"instances"`
	Services    int               `json:"services"`
	Held        *v2HeldSweep      `json:"held,omitempty"`
	Leaving     int               `json:"leaving,omitempty"`  // instances that go by and by, since they were forgotten, or what was held is over
	Suspect     int               `json:"suspect,omitempty"`  // instances that are used after all others, since the copy is too old for their service's policy
	Withheld    int               `json:"withheld,omitempty"` // instances that are not used, since it is
	Source      *v2RegionSource   `json:"source,omitempty"`   // absent where nobody follows it, or where it is not known
	Problem     *v2RegionProblem  `json:"problem,omitempty"`  // the same, and where there is none
}

// v2HeldSweep is what the last full sync did not tell, and is kept since it is much.
type v2HeldSweep struct {
	Since     string `json:"since"`
	Until     string `json:"until"` // then it goes, if the region is heard until then
	Instances int    `json:"instances"`
	Of        int    `json:"of"`
}

// v2Regions tells of the copies of other regions. It needs no quorum: how old they are
// is what one wants to know when there is trouble.
func (a *API) v2Regions(w http.ResponseWriter, q *http.Request) error {
	if err := noParameters(q); err != nil {
		return err
	}
	settings := a.federation()
	out := v2Federation{Region: a.cluster().Region, Regions: []v2Region{}}
	known := a.registry.Regions()
	for _, k := range settings.Sources {
		of := registry.Region{Key: k}
		if at := slices.IndexFunc(known, func(r registry.Region) bool { return r.Key == k }); at >= 0 {
			of = known[at]
			known = slices.Delete(known, at, at+1)
		}
		out.Regions = append(out.Regions, a.shownRegion(of, &settings.Neighbours))
	}
	for _, of := range known {
		out.Regions = append(out.Regions, a.shownRegion(of, &settings.Neighbours))
	}
	if settings.Following != nil && len(settings.Sources) > 0 {
		out.showFollowing(settings.Following(q.Context()))
	}
	writeJSON(w, http.StatusOK, typeJSON, &out)
	return nil
}

func (a *API) shownRegion(of registry.Region, known *registry.Neighbours) v2Region {
	out := v2Region{
		Region: of.Key.Region, ClusterID: of.Key.Cluster, Configured: slices.Contains(known.Sources, of.Key), Paused: of.Paused,
		Incarnation: of.Cursor.Incarnation, Revision: of.Cursor.Revision, FullSync: of.Cursor.Sync != 0,
		Instances: of.Instances, Services: of.Services, Suspect: of.Suspect, Withheld: of.Withheld, Leaving: of.Leaving, Connected: a.registry.Connected(of, known),
	}
	if age, known := a.registry.RegionAge(of); known {
		ms := age.Milliseconds()
		out.AgeMs = &ms
	}
	if h := of.Held; h.Since != 0 {
		out.Held = &v2HeldSweep{Since: timeText(time.UnixMilli(h.Since)), Until: timeText(of.HeldUntil()), Instances: h.Instances, Of: h.Of}
	}
	return out
}

type regionBody struct {
	Region    string `json:"region"`
	ClusterID uint64 `json:"clusterId"` // 0 = the only one of the region
}

type regionAnswer struct {
	Region    string            `json:"region"`
	ClusterID uint64            `json:"clusterId"`
	Changed   bool              `json:"changed"`
	Revision  registry.Revision `json:"revision"`
	Leaving   int               `json:"leaving,omitempty"` // instances that go behind this answer
}

// federationRoutes are what an operator may do to the copies of other regions.
func (a *API) federationRoutes() []route {
	var out []route
	for _, action := range []registry.RegionAction{registry.RegionPause, registry.RegionResume, registry.RegionResync, registry.RegionConfirm, registry.RegionForget} {
		out = append(out, route{method: http.MethodPost, pattern: "/admin/v1/federation/" + string(action), surface: surfaceAdmin, serve: a.controlRegion(action)})
	}
	return out
}

func (a *API) controlRegion(action registry.RegionAction) handler {
	return func(w http.ResponseWriter, q *http.Request) error {
		var body regionBody
		if err := decode(w, q, &body); err != nil {
			return err
		}
		k, err := a.regionNamed(body)
		if err != nil {
			return err
		}
		about(w, "region "+k.Region+" "+strconv.FormatUint(k.Cluster, 10))
		result, err := a.registry.ControlRegion(q.Context(), k, action)
		if err != nil {
			return err
		}
		setRevision(w, result.Revision)
		writeData(w, &regionAnswer{k.Region, k.Cluster, result.Changed, result.Revision, a.registry.Region(k).Leaving})
		return nil
	}
}

// regionNamed is the copy that is meant.
func (a *API) regionNamed(body regionBody) (registry.RegionKey, error) {
	if body.Region == "" {
		return registry.RegionKey{}, invalid("region", "is missing: the region whose copy is meant")
	}
	k := registry.RegionKey{Region: body.Region, Cluster: body.ClusterID}
	if k.Cluster != 0 {
		return k, nil
	}
	for _, of := range a.registry.Regions() {
		switch {
		case of.Key.Region != body.Region:
		case k.Cluster != 0:
			return k, invalid("clusterId", fmt.Sprintf("is missing: region %s has the clusters %d and %d", clip(body.Region), k.Cluster, of.Key.Cluster))
		default:
			k.Cluster = of.Key.Cluster
		}
	}
	return k, nil
}

// shownOrigin is where an instance of another region is from.
type shownOrigin struct {
	ClusterID  uint64            `json:"clusterId"`
	InstanceID string            `json:"instanceId"`       // as it is called there
	Revision   registry.Revision `json:"revision"`         // of that region
	SeenAt     string            `json:"seenAt"`           // when that region told of it last
	Status     string            `json:"status,omitempty"` // what that region says of it, where the age of the copy has made another status of it
}

// origin is written of instances of other regions only.
func (e *encoder) origin(i *registry.Instance) {
	if i.Imported == nil {
		return
	}
	e.key("origin")
	e.open('{')
	e.number("clusterId", int64(i.Imported.Cluster))
	e.text("instanceId", i.SourceID())
	e.number("revision", int64(i.Imported.Revision))
	e.time("seenAt", i.Imported.SeenAt)
	if told := i.ToldStatus(); told != i.Status {
		e.text("status", told.String())
	}
	e.close('}')
}

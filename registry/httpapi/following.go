package httpapi

import (
	"slices"
	"time"

	"github.com/stellmap/stellmap/registry"
)

// Following is how other regions are followed, as the member knows that leads: nobody
// else follows any.
type Following struct {
	Member uint64 // 0 = none leads, as far as is known
	Err    error  // it did not answer
	Links  []RegionLink
}

// A RegionLink is how one region is followed.
type RegionLink struct {
	Region       registry.RegionKey
	Address      string // "" = it is not
	Member       uint64 // of the region, that answers there; 0 = nobody
	FeatureLevel uint32 // 0 = it is not known
	Problem      *RegionProblem
}

// A RegionProblem is why a region is not followed, or may soon not be.
type RegionProblem struct {
	Code, Text string
	Since      time.Time // zero = it is not known
}

// v2FollowedBy is who follows the regions for all members.
type v2FollowedBy struct {
	Member uint64 `json:"member"`          // 0 where there is no leader: nothing is followed
	Error  string `json:"error,omitempty"` // why it does not say how
}

// v2RegionSource is the member of a region that is followed, or tried.
type v2RegionSource struct {
	Address      string `json:"address"`
	Member       uint64 `json:"member,omitempty"`       // absent where nobody answers
	FeatureLevel uint32 `json:"featureLevel,omitempty"` // that its cluster works at; absent where it is not known
}

// v2RegionProblem is why a copy is not kept up to date, or may soon not be.
type v2RegionProblem struct {
	Code  string `json:"code"`
	Text  string `json:"text"`
	Since string `json:"since,omitempty"`
}

func (l *v2Federation) showFollowing(f Following) {
	l.FollowedBy = &v2FollowedBy{Member: f.Member}
	if f.Err != nil {
		l.FollowedBy.Error = f.Err.Error()
	}
	for n := range l.Regions {
		r := &l.Regions[n]
		at := slices.IndexFunc(f.Links, func(o RegionLink) bool { return o.Region == registry.RegionKey{Region: r.Region, Cluster: r.ClusterID} })
		if at < 0 || f.Links[at].Address == "" {
			continue
		}
		link := &f.Links[at]
		r.Source = &v2RegionSource{Address: link.Address, Member: link.Member, FeatureLevel: link.FeatureLevel}
		if p := link.Problem; p != nil {
			r.Problem = &v2RegionProblem{Code: p.Code, Text: p.Text}
			if !p.Since.IsZero() {
				r.Problem.Since = timeText(p.Since)
			}
		}
	}
}

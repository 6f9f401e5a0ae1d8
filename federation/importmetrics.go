package federation

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/stellmap/stellmap/registry"
)

// importMetrics count what is taken in. Regions are few, and named in the settings.
type importMetrics struct {
	ended, syncs          *prometheus.CounterVec
	bytes, items, refused *prometheus.CounterVec
}

func newImportMetrics() *importMetrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, append([]string{"region"}, labels...))
	}
	return &importMetrics{
		ended:   counter("stellmap_federation_streams_ended_total", "Streams by which this member followed a region and that have ended, by reason.", "reason"),
		syncs:   counter("stellmap_federation_full_syncs_total", "Full syncs of a region that this member has begun, by reason.", "reason"),
		bytes:   counter("stellmap_federation_received_bytes_total", "Bytes that a region has told this member."),
		items:   counter("stellmap_federation_instances_taken_in_total", "Instances that have come, changed or gone in a region, as this member has had them committed."),
		refused: counter("stellmap_federation_instances_refused_total", "Instances that a region has told and that cannot be had here."),
	}
}

func (m *importMetrics) register(r prometheus.Registerer) error {
	var all []error
	for _, c := range []prometheus.Collector{m.ended, m.syncs, m.bytes, m.items, m.refused} {
		all = append(all, r.Register(c))
	}
	return errors.Join(all...)
}

var (
	followedDesc    = regionDesc("followed", "1 while this member follows a region.")
	isConnectedDesc = regionDesc("connected", "1 while it was confirmed lately how far a region has told this member's copy.")
	problemDesc     = regionDesc("problem", "1 while something is wrong with following a region, by reason, on the member that follows it.", "reason")
	ageDesc         = regionDesc("age_seconds", "How old this member's copy of a region is: all that the region had committed so long ago is in it.")
	revisionDesc    = regionDesc("revision", "The region's revision up to which it has been copied.")
	lagDesc         = regionDesc("behind_revisions", "Revisions that a region has told this member and that are not committed yet.")
	instancesDesc   = regionDesc("instances", "Instances of a region that there is a copy of.")
	heldDesc        = regionDesc("held_instances", "Instances that the last full sync of a region did not tell, and that are kept since they are many.")
	leavingDesc     = regionDesc("leaving_instances", "Instances of a region that go by and by, since they were forgotten, or what was held is over.")
	suspectDesc     = regionDesc("suspect_instances", "Instances of a region that are used after all others, since its copy is too old for their service's policy.")
	withheldDesc    = regionDesc("withheld_instances", "Instances of a region that are not used, since its copy is too old for their service's policy.")
	pausedDesc      = regionDesc("paused", "1 while the copy of a region takes nothing in.")
)

func regionDesc(name, help string, more ...string) *prometheus.Desc {
	return prometheus.NewDesc("stellmap_federation_"+name, help, append([]string{"region"}, more...), nil)
}

// Describe is for prometheus.
func (i *Importer) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{followedDesc, isConnectedDesc, problemDesc, ageDesc, revisionDesc, lagDesc, instancesDesc, heldDesc, leavingDesc, suspectDesc, withheldDesc, pausedDesc} {
		to <- d
	}
}

// Collect is for prometheus.
func (i *Importer) Collect(to chan<- prometheus.Metric) {
	for _, s := range i.sources {
		of := i.registry.Region(s.key)
		gauge := func(d *prometheus.Desc, n float64, labels ...string) {
			to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, n, append([]string{s.Region}, labels...)...)
		}
		gauge(followedDesc, oneIf(s.following.Load()))
		age, known := i.registry.RegionAge(of)
		gauge(isConnectedDesc, oneIf(known && !of.Paused && age <= ConnectedAge))
		if known {
			gauge(ageDesc, age.Seconds())
		}
		if p := s.link.shown(i.understands).Problem; p != nil {
			gauge(problemDesc, 1, p.Code)
		}
		gauge(revisionDesc, float64(of.Cursor.Revision))
		gauge(lagDesc, float64(max(registry.Revision(s.heard.Load()), of.Cursor.Revision)-of.Cursor.Revision))
		gauge(instancesDesc, float64(of.Instances))
		gauge(heldDesc, float64(of.Held.Instances))
		gauge(leavingDesc, float64(of.Leaving))
		gauge(suspectDesc, float64(of.Suspect))
		gauge(withheldDesc, float64(of.Withheld))
		gauge(pausedDesc, oneIf(of.Paused))
	}
}

func oneIf(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

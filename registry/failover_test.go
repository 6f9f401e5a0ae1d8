package registry

import (
	"fmt"
	"strings"
	"testing"
)

// candidatesOf reads candidates: region/zone, a colon, and p(assing), s(uspect, or anything
// else that counts and is not healthy) or d(raining) for each; weights stand in front, if not 1.
func candidatesOf(t *testing.T, text string) []Candidate {
	t.Helper()
	var out []Candidate
	for _, group := range strings.Fields(text) {
		place, letters, _ := strings.Cut(group, ":")
		region, zone, _ := strings.Cut(place, "/")
		weight := uint64(1)
		if _, err := fmt.Sscanf(letters, "%d*%s", &weight, &letters); err != nil {
			weight = 1
		}
		for _, letter := range letters {
			out = append(out, Candidate{Region: region, Zone: zone, Weight: weight, Healthy: letter == 'p', Leaving: letter == 'd'})
		}
	}
	return out
}

// ranked is who is in which group, as region/zone of each candidate, without repeats.
func ranked(r Rank, all []Candidate) string {
	var out []string
	for n, g := range r.Groups {
		var in []string
		for i, of := range r.Of {
			place := strings.TrimSuffix(all[i].Region+"/"+all[i].Zone, "/")
			if of == n && (len(in) == 0 || in[len(in)-1] != place) {
				in = append(in, place)
			}
		}
		name := ""
		if g.Zone != "" {
			name = "zone "
		} else if g.Rest {
			name = "rest "
		}
		out = append(out, name+strings.Join(in, "+"))
	}
	return strings.Join(out, ", ")
}

// Whom a client calls first, by each mode and field of a policy. It is in region here,
// whose settings name west before east.
func TestWhomAClientCallsFirst(t *testing.T) {
	for name, c := range map[string]struct{ policy, zone, mode, candidates, want string }{
		"its own region, then as the settings have it, then by name": {candidates: "east:p aft:p zoo:p west:p here:p", want: "here, west, east, aft, zoo"},
		"no gap where a region has none":                             {candidates: "east:p west:p", want: "west, east"},
		"nobody":                                                     {want: ""},
		"the policy's order is before that of the settings": {policy: `{"regions":["zoo","here","east"]}`,
			candidates: "east:p zoo:p west:p here:p", want: "here, zoo, east, west"},
		"local-only":                                {policy: `{"mode":"local-only"}`, candidates: "east:p here:s", want: "here"},
		"local-only, and there is none":             {policy: `{"mode":"local-only"}`, candidates: "east:p", want: ""},
		"local-first, one passing is enough":        {policy: `{"mode":"local-first"}`, candidates: "east:p here:psss", want: "here"},
		"local-first, and none is passing":          {policy: `{"mode":"local-first"}`, candidates: "east:p here:ssd", want: "here, east"},
		"local-first, with as many as it wants":     {policy: `{"mode":"local-first","minPassing":3}`, candidates: "east:p here:pspp", want: "here"},
		"local-first, with fewer":                   {policy: `{"mode":"local-first","minPassing":3}`, candidates: "east:p here:pspd", want: "here, east"},
		"local-first, those of others do not count": {policy: `{"mode":"local-first","minPassing":2}`, candidates: "east:ppp here:p", want: "here, east"},
		"merged":                       {policy: `{"mode":"merged"}`, candidates: "east:p here:s west:p", want: "east+here+west"},
		"merged, and nobody":           {policy: `{"mode":"merged"}`, want: ""},
		"a request names another mode": {policy: `{"mode":"local-only"}`, mode: FailoverMerged, candidates: "east:p here:p", want: "east+here"},
		"and another":                  {policy: `{"mode":"merged"}`, mode: FailoverLocalOnly, candidates: "east:p here:p", want: "here"},
		"gateways are in the place of the regions they are of": {mode: FailoverGateway, candidates: "east:p here:p", want: "here, east"},

		"zone first":                          {policy: `{"zoneFirst":true}`, zone: "a", candidates: "here/a:pp here/b:pp here/c:pp east/a:p", want: "zone here/a, rest here/b+here/c, east/a"},
		"zone first, of a client without one": {policy: `{"zoneFirst":true}`, candidates: "here/a:p here/b:p", want: "here/a+here/b"},
		"a zone is not asked for":             {zone: "a", candidates: "here/a:p here/b:p", want: "here/a+here/b"},
		"a zone that is all there is":         {policy: `{"zoneFirst":true}`, zone: "a", candidates: "here/a:p east:p", want: "zone here/a, east"},
		"a zone of nobody":                    {policy: `{"zoneFirst":true}`, zone: "x", candidates: "here/a:p here/b:p", want: "here/a+here/b"},
		"a zone of another region":            {policy: `{"zoneFirst":true}`, zone: "a", candidates: "here/b:p east/a:p", want: "here/b, east/a"},
		// Three zones with seven healthy ones: a fair share is 2.33, and 1/1.4 of that is 1.67.
		"a zone that lost a third has its share still": {policy: `{"zoneFirst":true}`, zone: "a", candidates: "here/a:pps here/b:ppp here/c:pp", want: "zone here/a, rest here/b+here/c"},
		"a zone that lost two thirds has not":          {policy: `{"zoneFirst":true}`, zone: "a", candidates: "here/a:pss here/b:ppp here/c:ppp", want: "here/a+here/b+here/c"},
		"a zone's share is by weight":                  {policy: `{"zoneFirst":true}`, zone: "a", candidates: "here/a:300*p here/b:100*ppp", want: "zone here/a, rest here/b"},
		"and so is the lack of it":                     {policy: `{"zoneFirst":true}`, zone: "b", candidates: "here/a:300*pp here/b:100*pp", want: "here/a+here/b"},
		// Two zones: 1/1.4 of half of all that is healthy.
		"a zone with just its share":       {policy: `{"zoneFirst":true}`, zone: "a", candidates: "here/a:50*p here/b:90*p", want: "zone here/a, rest here/b"},
		"a zone with hardly less":          {policy: `{"zoneFirst":true}`, zone: "a", candidates: "here/a:50*p here/b:91*p", want: "here/a+here/b"},
		"a stricter guard":                 {policy: `{"zoneFirst":true,"overprovisioningPercent":100}`, zone: "a", candidates: "here/a:pps here/b:ppp", want: "here/a+here/b"},
		"zone first, and nobody else":      {policy: `{"zoneFirst":true,"mode":"local-only"}`, zone: "a", candidates: "here/a:p here/b:p east:p", want: "zone here/a, rest here/b"},
		"merged by request knows no zones": {policy: `{"zoneFirst":true}`, zone: "a", mode: FailoverMerged, candidates: "here/a:p here/b:p", want: "here/a+here/b"},

		"all or nothing keeps the order":         {policy: `{"allOrNothing":true}`, candidates: "east:p here:sssp", want: "here, east"},
		"a region with its share is kept":        {policy: `{"allOrNothing":true,"minHealthyPercent":50}`, candidates: "east:p here:spd", want: "here, east"},
		"a region with less is left whole":       {policy: `{"allOrNothing":true,"minHealthyPercent":50}`, candidates: "east:p here:ssp west:sp", want: "west, east, here"},
		"where all have less the nearest is it":  {policy: `{"allOrNothing":true,"minHealthyPercent":50}`, candidates: "east:ssp here:ssp", want: "here, east"},
		"a region that drains has nothing":       {policy: `{"allOrNothing":true,"minHealthyPercent":1}`, candidates: "east:p here:dd", want: "east, here"},
		"a region that is left is left by zones": {policy: `{"allOrNothing":true,"minHealthyPercent":80,"zoneFirst":true}`, zone: "a", candidates: "east:p here/a:p here/b:s", want: "east, zone here/a, rest here/b"},
	} {
		t.Run(name, func(t *testing.T) {
			p := Policy{}
			if c.policy != "" {
				p = policyOf(t, `{"failover":`+c.policy+`}`)
			}
			var bad problems
			if p = p.normalize(&bad); len(bad) > 0 {
				t.Fatal(bad)
			}
			all := candidatesOf(t, c.candidates)
			r := p.Rank(Standpoint{Region: "here", Zone: c.zone, Mode: c.mode, Order: []string{"here", "west", "east"}}, all)
			if got := ranked(r, all); got != c.want {
				t.Errorf("it calls %q, want %q", got, c.want)
			}
		})
	}
	all := candidatesOf(t, "here:p east:p")
	if got := ranked((*Policy)(nil).Rank(Standpoint{Region: "east", Order: []string{"here"}}, all), all); got != "east, here" {
		t.Errorf("a client in another region calls %q", got)
	}
}

// Of instances it is their status that counts, or that their service hands them out.
func TestRankOfInstances(t *testing.T) {
	of := func(region string, status Status, handedOut bool) *Instance {
		i := &Instance{Origin: &Origin{Region: region}, Status: status}
		if region != "here" {
			i.Imported, i.Protected = new(Imported), handedOut
		}
		return i
	}
	p := policyOf(t, `{"failover":{"mode":"local-first"}}`)
	for status, want := range map[Status]string{
		StatusPassing: "here", StatusWarning: "here", StatusSuspect: "here, east", StatusCritical: "here, east", StatusDraining: "here, east", StatusExpired: "here, east",
	} {
		instances := []*Instance{of("here", status, false), of("east", StatusPassing, false)}
		r := (&Service{Policy: &p}).Rank(Standpoint{Region: "here"}, instances)
		if got := ranked(r, candidatesOf(t, "here:p east:p")); got != want {
			t.Errorf("%s: %q, want %q", status, got, want)
		}
	}
	handed := []*Instance{of("east", StatusCritical, true), of("west", StatusPassing, false)}
	if r := (&Service{Policy: &p}).Rank(Standpoint{Region: "east"}, handed); len(r.Groups) != 1 {
		t.Errorf("one that its region hands out does not count as passing: %+v", r)
	}
}

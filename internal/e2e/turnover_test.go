package e2e

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Members keep 131,072 changes for those who come back to watch. Tests of who was away
// for longer have members that keep few: the same code, in the build for planted bugs.

// keepFew has members keep so many changes.
func keepFew(t *testing.T, events int) func(*member) {
	t.Helper()
	binary := buildWithBugs(t)
	return func(m *member) {
		at := slices.Index(m.command, filepath.Join(bin, "stellmapd"))
		m.command = slices.Replace(m.command, at, at+1, "env", fmt.Sprintf("STELLMAP_EVENTS=%d", events), binary)
	}
}

const turnItems = 64 // of one call, in one entry

// turn changes what nobody watches.
func (c *cluster) turn(ctx context.Context, m *member, n int) error {
	items := make([]string, turnItems)
	for i := range items {
		items[i] = fmt.Sprintf(`{"register":{"namespace":"turn","service":"over","instanceId":"i%d","leaseToken":%q,"metadata":{"n":"%d"},"endpoints":[{"protocol":"http","host":"10.0.0.1","port":80}],"leaseTtlSeconds":3600}}`,
			i, leaseToken, n)
	}
	a, err := c.call(ctx, http.MethodPost, m.url()+"/api/v2/batch", `{"items":[`+strings.Join(items, ",")+`]}`)
	if err == nil {
		err = a.want(http.StatusOK)
	}
	if err == nil && !strings.Contains(string(a.body), `"failed":0`) {
		err = fmt.Errorf("the batch is answered %.300s", a.body)
	}
	return err
}

// mustTurnOver writes until no member has what came after a revision.
func (c *cluster) mustTurnOver(revision uint64) {
	c.t.Helper()
	n := 0
	for _, m := range c.members {
		for floor := 0.0; uint64(floor) <= revision; n++ {
			if err := c.turn(c.t.Context(), m, n); err != nil {
				c.t.Fatal(err)
			}
			var err error
			if floor, err = c.metric(c.t.Context(), m, "stellmap_registry_history_floor"); err != nil {
				c.t.Fatal(err)
			}
		}
	}
}

// metric is the value of one without labels.
func (c *cluster) metric(ctx context.Context, m *member, name string) (float64, error) {
	a, err := c.call(ctx, http.MethodGet, m.url()+"/metrics", "")
	if err != nil {
		return 0, err
	}
	part := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindSubmatch(a.body)
	if part == nil {
		return 0, fmt.Errorf("%s does not say %s", m.name(), name)
	}
	return strconv.ParseFloat(string(part[1]), 64)
}

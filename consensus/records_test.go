package consensus

import "testing"

// The cluster gets its incarnation while it is written to, too: entries of the
// leader's own term that are not applied yet do not put it off.
func TestTheIncarnationDoesNotWaitForTheWritersToRest(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		g := c.nodes[1].Group
		if g.appliedTerm != g.leads || g.facts.Load().incarnation != "" {
			t.Fatalf("term %d applied of %d, incarnation %q", g.appliedTerm, g.leads, g.facts.Load().incarnation)
		}
		g.commit++ // an entry that the applier has not taken yet
		g.proposeRecords()
		g.commit--
		notify(g.wakeOwner)
		c.settle()
		if g.facts.Load().incarnation == "" {
			t.Error("the cluster has no incarnation")
		}
	})
}

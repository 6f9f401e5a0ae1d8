// Package federation is what regions have to do with each other. Each is a consensus
// domain of its own; what one knows of another is a copy, which it follows.
//
//	registry.Replica ─▶ Exporter ─ window, rate ─▶ another region's cluster, or a mirror
//	                        ▲──── acknowledgements ────│
//
// What the exporter promises to whoever follows:
//
//   - All that the region itself has, as it is stored, and then each change of it: whole
//     revisions, in order, without a gap, from the cursor on that was told last, at any member.
//   - Where that cannot be, all there is at one revision, in the same stream, whatever is
//     changed meanwhile. What is not in it is gone.
//   - Nothing that is of another region, so that regions may follow each other in a circle;
//     and no lease token.
//
// The importer is the other side: while its member leads, it follows the regions of the
// settings and has what they tell committed, together with how far that is. What it
// promises to whoever reads a copy:
//
//   - It comes to be what the region has, after whatever cut and change of leaders.
//   - A region that cannot be reached takes nothing away; the copy says how old it is.
//   - Nothing of two incarnations of a cluster is ever mixed.
//
// What the exporter never does: it does not go ahead of a replicator by more than a window, and
// keeps nothing for one that is slow; and it answers nobody who has not shown the
// replication token, unless there is none and whoever reaches the port may read anyway.
package federation

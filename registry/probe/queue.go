package probe

import (
	"container/heap"
	"time"
)

// A queue is targets by the time at which they are due. A target is in it once at
// most, so it is no longer than this member's share.
type queue []*target

func (p *Prober) push(t *target, due time.Time) {
	t.due = due
	heap.Push(&p.queue, t)
}

func (p *Prober) pop() *target { return heap.Pop(&p.queue).(*target) }

func (p *Prober) remove(t *target) {
	if t.index >= 0 {
		heap.Remove(&p.queue, t.index)
	}
}

func (q queue) Len() int           { return len(q) }
func (q queue) Less(a, b int) bool { return q[a].due.Before(q[b].due) }

func (q queue) Swap(a, b int) {
	q[a], q[b] = q[b], q[a]
	q[a].index, q[b].index = a, b
}

// Push is for package heap.
func (q *queue) Push(x any) {
	t := x.(*target)
	t.index = len(*q)
	*q = append(*q, t)
}

// Pop is for package heap.
func (q *queue) Pop() any {
	last := len(*q) - 1
	t := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	t.index = -1
	return t
}

package consensus

import "sync"

// mailbox is a queue into one goroutine: anybody puts, one takes all.
type mailbox[T any] struct {
	wake     chan struct{} // has room for one: something was put
	countMax int           // 0 = no limit: the senders bound what they put
	bytesMax int

	mu     sync.Mutex // guards what follows
	items  []T
	bytes  int
	closed bool
}

func newMailbox[T any](wake chan struct{}, countMax, bytesMax int) *mailbox[T] {
	return &mailbox[T]{wake: wake, countMax: countMax, bytesMax: bytesMax}
}

// put adds an item of a size, or returns false when the box is full or closed.
// An item larger than the limit is taken by an empty box.
func (m *mailbox[T]) put(item T, size int) bool {
	m.mu.Lock()
	ok := !m.closed && !(m.countMax > 0 && len(m.items) > 0 && (len(m.items) >= m.countMax || m.bytes+size > m.bytesMax))
	if ok {
		m.items = append(m.items, item)
		m.bytes += size
	}
	m.mu.Unlock()
	if ok {
		notify(m.wake)
	}
	return ok
}

// take returns all items; into is reused for what comes next.
func (m *mailbox[T]) take(into []T) []T {
	clear(into)
	m.mu.Lock()
	defer m.mu.Unlock()
	items := m.items
	m.items, m.bytes = into[:0], 0
	return items
}

// load is how many items wait, and their size.
func (m *mailbox[T]) load() (count, bytes int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.items), m.bytes
}

// close refuses what comes later and returns what is left.
func (m *mailbox[T]) close() []T {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	items := m.items
	m.items, m.bytes = nil, 0
	return items
}

// isClosed tells why a put may have failed.
func (m *mailbox[T]) isClosed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.closed
}

// notify wakes a goroutine that waits, or will wait, on the channel.
func notify(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

package registry

import (
	"sync"
)

// A Machine is the replicated state of the registry. One goroutine, the one
// that applies the log, calls Apply, Publish, Lead and Follow; everything else
// may be called from anywhere.
//
// Apply changes the working state only. Publish, called when the entries are in
// the engine, makes the same changes to the published state in one step and
// then tells the watchers. So a reader sees either nothing of a revision or all
// of it, nothing that a crash could take back from under it, and a watcher that
// has been told of a revision finds it when it looks.
type Machine struct {
	region string
	ring   *ring

	mu        sync.RWMutex // guards what follows
	published *state
	revision  Revision
}

// Revision is the newest revision that readers see.
func (m *Machine) Revision() Revision {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.revision
}

// Service is a service as it is now; nil when it is unknown. What it returns is
// built at most once after each change, and shared.
func (m *Machine) Service(k ServiceKey) *Service {
	m.mu.RLock()
	defer m.mu.RUnlock()
	svc := m.published.services[k]
	if svc == nil {
		return nil
	}
	return svc.snapshot()
}

// ServiceKeys are the services of a namespace, or all for "", sorted.
func (m *Machine) ServiceKeys(namespace string) []ServiceKey {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var keys []ServiceKey
	for _, svc := range m.published.from(namespace, "") {
		if namespace != "" && svc.key.Namespace != namespace {
			break
		}
		keys = append(keys, svc.key)
	}
	return keys
}

// Watch tells the changes after a revision.
func (m *Machine) Watch(after Revision) *Watch {
	return &Watch{ring: m.ring, after: after}
}

// from is the sorted services from a key on.
func (s *state) from(namespace, service string) []*serviceState {
	return s.order[s.search(ServiceKey{Namespace: namespace, Service: service}):]
}

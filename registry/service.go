package registry

import "cmp"

// ServiceKey names a service.
type ServiceKey struct{ Namespace, Service string }

// Compare orders keys by namespace, then by service.
func (k ServiceKey) Compare(o ServiceKey) int {
	return cmp.Or(cmp.Compare(k.Namespace, o.Namespace), cmp.Compare(k.Service, o.Service))
}

// A Service is a service as it stood at one revision. It is shared by all
// readers and never changes.
type Service struct {
	Key         ServiceKey
	Created     Revision
	Revision    Revision          // of the last change that concerns it
	Endpoints   []ServiceEndpoint // [0] is the primary: the first of the first registration, unless the policy names another; others follow as first seen
	Overrides   []KeptOverride    // of instances that are gone; sorted by id
	Protections []ExpiryPause     // of it and of its zones, sorted by scope
	Policy      *Policy           // nil = none
	Statuses    StatusCounts
	Protected   *Protection // nil = callers get the routable instances only
	Instances   []*Instance // sorted by id, of every status
	Shown       []*Instance // sorted by id: all but the disabled ones; of the expired ones those that are kept in view as placeholders
}

// A ServiceEndpoint is an endpoint name of a service with the protocol that it was first seen with.
type ServiceEndpoint struct{ Name, Protocol string }

// Instance finds an instance by id.
func (s *Service) Instance(id string) (*Instance, bool) {
	i, ok := searchID(s.Instances, id)
	if !ok {
		return nil, false
	}
	return s.Instances[i], true
}

package registry

import (
	"slices"
	"strings"
)

// How a query finds its instances without looking at the others.
//
// An entry per instance and value would cost more than the instance: a million
// of them have some ten values each. An entry per service and value is a
// hundredth of that, and is nearly as good as long as services are small: what
// one has to look at is the instances of the services that have a match. But one
// service of a hundred thousand instances would be read whole for the one that
// is wanted. So the instances of a service, sorted by id, are cut into blocks of
// at most blockMax, and an entry says in which blocks a value occurs, and how
// often. A query takes the value that occurs in the fewest blocks, drops those
// that the other values rule out, and looks at the instances of the rest: at
// most blockMax for each that it finds, however much else is registered.
//
// What a selector refuses (!key, key!=value, key notin ...) is looked up as what
// it leaves: the label's other values, and the instances without it. These have
// an entry of their own as long as the label is common, on half of a namespace
// or more. Of a rare label they would be nearly everything, and so is the answer.
//
// Services have no need of an index of prefixes: they are sorted by name; the
// levels of a name after the first have one over services.
//
// Only the published state has an index: nobody queries the other.
type index struct {
	state      *state
	namespaces map[string]*namespaceIndex
}

// blockMax bounds the instances of a block. Larger ones would need less memory
// and make a query look at more in vain.
const blockMax = 128

// A block is a run of a service's instances, by id: from its first id on, up to
// the next block's. The first block begins at "".
type block struct {
	service   *serviceState
	from      string
	instances int
}

// A namespaceIndex is the index of one namespace, which has at least one service.
type namespaceIndex struct {
	name      string
	services  int
	instances int
	blocks    int
	values    [dimensions]map[string]posting
	labels    map[string]*labelIndex
	common    []*labelIndex                               // those that count absences; sorted by key
	levels    [len(levelNames)]map[string][]*serviceState // sorted by key; none of the first level, by which services are sorted
}

// A dimension is a field of instances that queries ask for by its value.
type dimension uint8

const (
	byGroup dimension = iota
	byZone
	byRegion
	byVersion
	byEndpoint // by name and by protocol
	byStatus
	dimensions
)

// A labelIndex is the index of one label key.
type labelIndex struct {
	key    string
	any    posting // instances with this label, of whatever value
	absent posting // instances without it, counted while it is common
	common bool
	values map[string]posting
}

// A posting says in which blocks a value occurs. Most values of large registries
// occur in one place (the name of a pod), so that one needs no map.
type posting struct {
	instances int            // that have the value, in all blocks
	one       *block         // the only block where it occurs
	more      map[*block]int // the blocks, when there are several, and how many instances of each have it
}

func newIndex(s *state) *index {
	return &index{state: s, namespaces: make(map[string]*namespaceIndex)}
}

func (p *posting) blocks() int {
	switch {
	case p.more != nil:
		return len(p.more)
	case p.one != nil:
		return 1
	}
	return 0
}

// in is how many instances of a block have the value.
func (p *posting) in(b *block) int {
	switch {
	case p.more != nil:
		return p.more[b]
	case p.one == b:
		return p.instances
	}
	return 0
}

func (p *posting) add(b *block) {
	p.instances++
	switch {
	case p.more != nil:
		p.more[b]++
	case p.one == nil || p.one == b:
		p.one = b
	default:
		p.more, p.one = map[*block]int{p.one: p.instances - 1, b: 1}, nil
	}
}

func (p *posting) remove(b *block) {
	if p.in(b) == 0 {
		panic("registry: the index has lost a value of an instance of service " + b.service.key.Service)
	}
	p.instances--
	switch {
	case p.more == nil && p.instances == 0:
		p.one = nil
	case p.more == nil:
	case p.more[b] > 1:
		p.more[b]--
	default:
		delete(p.more, b)
		if len(p.more) == 1 {
			for only := range p.more {
				p.one = only
			}
			p.more = nil
		}
	}
}

// each calls fn with every block where the value occurs.
func (p *posting) each(fn func(*block)) {
	if p.one != nil {
		fn(p.one)
	}
	for b := range p.more {
		fn(b)
	}
}

// addService makes a service known.
func (x *index) addService(svc *serviceState) {
	n := x.namespaces[svc.key.Namespace]
	if n == nil {
		n = &namespaceIndex{name: svc.key.Namespace, labels: make(map[string]*labelIndex)}
		x.namespaces[svc.key.Namespace] = n
	}
	n.services++
	n.eachLevel(svc.key, func(of map[string][]*serviceState, level string) {
		at, _ := searchService(of[level], svc.key)
		of[level] = slices.Insert(of[level], at, svc)
	})
}

func (x *index) removeService(svc *serviceState) {
	n := x.namespaces[svc.key.Namespace]
	n.services--
	n.eachLevel(svc.key, func(of map[string][]*serviceState, level string) {
		at, _ := searchService(of[level], svc.key)
		if of[level] = slices.Delete(of[level], at, at+1); len(of[level]) == 0 {
			delete(of, level)
		}
	})
	if n.services == 0 {
		delete(x.namespaces, svc.key.Namespace)
	}
}

// eachLevel walks the levels of a service's name that have an index.
func (n *namespaceIndex) eachLevel(k ServiceKey, fn func(of map[string][]*serviceState, level string)) {
	levels := LevelsOf(k.Service)
	if levels.IsZero() {
		return
	}
	for l, level := range levels.parts() {
		if l == 0 {
			continue
		}
		if n.levels[l] == nil {
			n.levels[l] = make(map[string][]*serviceState)
		}
		fn(n.levels[l], level)
	}
}

// put follows an instance that has taken its place in the service; old is the
// one that had it, or nil.
func (x *index) put(svc *serviceState, i, old *Instance) {
	n := x.namespaces[svc.key.Namespace]
	if old != nil {
		if old.sameValues(i) {
			return
		}
		b := svc.blocks[svc.blockOf(i.ID)]
		n.forget(b, old)
		n.note(b, i)
		x.settle(n, old.Labels, i.Labels)
		return
	}
	n.instances++
	before := len(svc.blocks)
	at := svc.openBlock(i.ID)
	n.blocks += len(svc.blocks) - before
	b := svc.blocks[at]
	b.instances++
	n.note(b, i)
	if b.instances > blockMax {
		n.split(svc, at)
	}
	x.settle(n, i.Labels)
}

// openBlock is the block that a new id belongs to. Ids that come in order, as
// they do when a state is loaded, leave full blocks behind them.
func (svc *serviceState) openBlock(id string) int {
	if len(svc.blocks) == 0 {
		svc.blocks = append(svc.blocks, &block{service: svc})
		return 0
	}
	at := svc.blockOf(id)
	last := at == len(svc.blocks)-1 && svc.instances[len(svc.instances)-1].ID == id
	if last && svc.blocks[at].instances == blockMax {
		at++
		svc.blocks = append(svc.blocks, &block{service: svc, from: id})
	}
	return at
}

// blockOf is the place of the block that an id belongs to.
func (svc *serviceState) blockOf(id string) int {
	at, found := slices.BinarySearchFunc(svc.blocks, id, func(b *block, id string) int { return strings.Compare(b.from, id) })
	if !found {
		at--
	}
	return at
}

// inBlock is the instances of a block.
func (svc *serviceState) inBlock(at int) []*Instance {
	from, _ := searchID(svc.instances, svc.blocks[at].from)
	to := len(svc.instances)
	if at+1 < len(svc.blocks) {
		to, _ = searchID(svc.instances, svc.blocks[at+1].from)
	}
	return svc.instances[from:to]
}

// remove follows an instance that has left the service.
func (x *index) remove(svc *serviceState, i *Instance) {
	n := x.namespaces[svc.key.Namespace]
	n.instances--
	at := svc.blockOf(i.ID)
	b := svc.blocks[at]
	b.instances--
	n.forget(b, i)
	n.join(svc, at)
	x.settle(n, i.Labels)
}

// split moves the upper half of a block into one of its own.
func (n *namespaceIndex) split(svc *serviceState, at int) {
	inside := svc.inBlock(at)
	upper := inside[len(inside)/2:]
	b := &block{service: svc, from: upper[0].ID}
	svc.blocks = slices.Insert(svc.blocks, at+1, b)
	n.blocks++
	n.move(upper, svc.blocks[at], b)
}

// join does away with a block that is empty, or so small that it goes into the
// one before it without making that one large.
func (n *namespaceIndex) join(svc *serviceState, at int) {
	b := svc.blocks[at]
	if b.instances > 0 {
		if at == 0 || b.instances > blockMax/8 || b.instances+svc.blocks[at-1].instances > blockMax/2 {
			return
		}
		n.move(svc.inBlock(at), b, svc.blocks[at-1])
	}
	svc.blocks = slices.Delete(svc.blocks, at, at+1)
	n.blocks--
	if len(svc.blocks) > 0 {
		svc.blocks[0].from = ""
	}
}

func (n *namespaceIndex) move(instances []*Instance, from, to *block) {
	for _, i := range instances {
		n.forget(from, i)
		n.note(to, i)
	}
	from.instances -= len(instances)
	to.instances += len(instances)
}

// sameValues says that the index need not tell the two apart.
func (i *Instance) sameValues(o *Instance) bool {
	return i.Status == o.Status && i.Group == o.Group && i.Zone == o.Zone && i.Region == o.Region && i.Version == o.Version &&
		slices.Equal(i.Labels, o.Labels) && slices.EqualFunc(i.Endpoints, o.Endpoints, func(a, b Endpoint) bool { return a.Name == b.Name && a.Protocol == b.Protocol })
}

func (n *namespaceIndex) note(b *block, i *Instance) {
	i.eachValue(func(d dimension, value string) {
		if n.values[d] == nil {
			n.values[d] = make(map[string]posting)
		}
		p := n.values[d][value]
		p.add(b)
		n.values[d][value] = p
	})
	for _, l := range i.Labels {
		of := n.labels[l.Key]
		if of == nil {
			of = &labelIndex{key: l.Key, values: make(map[string]posting)}
			n.labels[l.Key] = of
		}
		of.any.add(b)
		p := of.values[l.Value]
		p.add(b)
		of.values[l.Value] = p
	}
	n.eachAbsent(i, func(of *labelIndex) { of.absent.add(b) })
}

func (n *namespaceIndex) forget(b *block, i *Instance) {
	i.eachValue(func(d dimension, value string) { removeValue(n.values[d], value, b) })
	for _, l := range i.Labels {
		of := n.labels[l.Key]
		removeValue(of.values, l.Value, b)
		of.any.remove(b)
	}
	n.eachAbsent(i, func(of *labelIndex) { of.absent.remove(b) })
}

// eachAbsent walks the common labels that an instance does not have.
func (n *namespaceIndex) eachAbsent(i *Instance, fn func(*labelIndex)) {
	rest := i.Labels
	for _, of := range n.common {
		for len(rest) > 0 && rest[0].Key < of.key {
			rest = rest[1:]
		}
		if len(rest) == 0 || rest[0].Key != of.key {
			fn(of)
		}
	}
}

// settle decides anew which labels are common, after a change of an instance
// with some. It becomes common at a half and rare again below a quarter, so that
// the counting of absences is paid by the changes in between.
func (x *index) settle(n *namespaceIndex, some ...Pairs) {
	for _, labels := range some {
		for _, l := range labels {
			of := n.labels[l.Key]
			switch {
			case of == nil: // gone with the same change
			case of.any.instances == 0:
				n.makeRare(of)
				delete(n.labels, l.Key)
			case !of.common && 2*of.any.instances >= n.instances:
				x.makeCommon(n, of)
			}
		}
	}
	for at := len(n.common) - 1; at >= 0; at-- { // the ones that the instance did not have have become rarer
		if of := n.common[at]; 4*of.any.instances < n.instances {
			n.makeRare(of)
		}
	}
}

func (n *namespaceIndex) commonAt(of *labelIndex) int {
	at, _ := slices.BinarySearchFunc(n.common, of.key, func(one *labelIndex, key string) int { return strings.Compare(one.key, key) })
	return at
}

func (x *index) makeCommon(n *namespaceIndex, of *labelIndex) {
	of.common = true
	n.common = slices.Insert(n.common, n.commonAt(of), of)
	if of.any.instances == n.instances {
		return
	}
	for _, svc := range x.state.prefixed(n.name, "") {
		for at, b := range svc.blocks {
			of.countAbsent(b, svc.inBlock(at))
		}
	}
}

func (of *labelIndex) countAbsent(b *block, inside []*Instance) {
	if of.any.in(b) == b.instances {
		return
	}
	for _, i := range inside {
		if _, has := i.Labels.Get(of.key); !has {
			of.absent.add(b)
		}
	}
}

func (n *namespaceIndex) makeRare(of *labelIndex) {
	if !of.common {
		return
	}
	at := n.commonAt(of)
	n.common = slices.Delete(n.common, at, at+1)
	of.common, of.absent = false, posting{}
}

func removeValue(of map[string]posting, value string, b *block) {
	p := of[value]
	p.remove(b)
	if p.instances == 0 {
		delete(of, value)
		return
	}
	of[value] = p
}

// eachValue walks the values of an instance other than its labels, each once.
func (i *Instance) eachValue(fn func(dimension, string)) {
	fn(byGroup, i.Group)
	fn(byZone, i.Zone)
	fn(byRegion, i.Region)
	fn(byVersion, i.Version)
	fn(byStatus, i.Status.String())
	for at := range i.Endpoints {
		e := &i.Endpoints[at]
		if !named(i.Endpoints[:at], e.Name) {
			fn(byEndpoint, e.Name)
		}
		if e.Protocol != e.Name && !named(i.Endpoints[:at], e.Protocol) {
			fn(byEndpoint, e.Protocol)
		}
	}
}

// named says whether one of the endpoints has the text as its name or protocol.
func named(endpoints []Endpoint, text string) bool {
	return slices.ContainsFunc(endpoints, func(e Endpoint) bool { return e.Name == text || e.Protocol == text })
}

// searchService gives the place of a service, or where it would be.
func searchService(sorted []*serviceState, k ServiceKey) (int, bool) {
	return slices.BinarySearchFunc(sorted, k, func(svc *serviceState, k ServiceKey) int { return svc.key.Compare(k) })
}

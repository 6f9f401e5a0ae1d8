package registry

import (
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// The question to renew leases, as recordv1.Ask has it: written and read without a
// message for each item. It is by far the most frequent of all questions, and has
// thousands of items when there is much to do.

// The fields of recordv1.Ask, RenewLeases, RenewItem and InstanceKey, with their types.
const (
	askFormat      = 1<<3 | uint64(protowire.VarintType)
	askRenewLeases = 2<<3 | uint64(protowire.BytesType)
	renewItems     = 1<<3 | uint64(protowire.BytesType)
	itemKey        = 1<<3 | uint64(protowire.BytesType)
	itemTTL        = 2<<3 | uint64(protowire.VarintType)
	itemProof      = 3<<3 | uint64(protowire.BytesType)
	keyNamespace   = 1<<3 | uint64(protowire.BytesType)
	keyService     = 2<<3 | uint64(protowire.BytesType)
	keyID          = 3<<3 | uint64(protowire.BytesType)

	wireTagSize = 1 // of all of them
)

// appendAskToRenew appends the question to renew some leases.
func appendAskToRenew(b []byte, batch []*pendingRenewal) []byte {
	size := 0
	for _, p := range batch {
		size += wireTagSize + protowire.SizeBytes(p.wireSize())
	}
	b = protowire.AppendVarint(protowire.AppendVarint(b, askFormat), formatMax)
	b = protowire.AppendVarint(protowire.AppendVarint(b, askRenewLeases), uint64(size))
	for _, p := range batch {
		b = protowire.AppendVarint(protowire.AppendVarint(b, renewItems), uint64(p.wireSize()))
		b = p.appendWire(b)
	}
	return b
}

// wireSize is what appendWire appends.
func (p *pendingRenewal) wireSize() int {
	n := wireTagSize + protowire.SizeBytes(wireSizeOfKey(p.key))
	if p.ttlMs != 0 {
		n += wireTagSize + protowire.SizeVarint(uint64(p.ttlMs))
	}
	if p.by.Asked {
		n += wireTagSize + protowire.SizeBytes(len(TokenHash{}))
	}
	return n
}

func (p *pendingRenewal) appendWire(b []byte) []byte {
	b = protowire.AppendVarint(protowire.AppendVarint(b, itemKey), uint64(wireSizeOfKey(p.key)))
	b = appendWireText(b, keyNamespace, p.key.Namespace)
	b = appendWireText(b, keyService, p.key.Service)
	b = appendWireText(b, keyID, p.key.ID)
	if p.ttlMs != 0 {
		b = protowire.AppendVarint(protowire.AppendVarint(b, itemTTL), uint64(p.ttlMs))
	}
	if p.by.Asked {
		hash := hashOf(p.by.Token)
		b = protowire.AppendBytes(protowire.AppendVarint(b, itemProof), hash[:])
	}
	return b
}

func wireSizeOfKey(k InstanceKey) int {
	return wireSizeOfText(k.Namespace) + wireSizeOfText(k.Service) + wireSizeOfText(k.ID)
}

func wireSizeOfText(text string) int {
	if text == "" {
		return 0
	}
	return wireTagSize + protowire.SizeBytes(len(text))
}

func appendWireText(b []byte, field uint64, text string) []byte {
	if text == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendVarint(b, field), text)
}

// readAskToRenew reads the question to renew leases. It is false for all others, and for
// one that has what this version does not know: package proto can say more of those.
func readAskToRenew(request []byte) (asked []leaseRenewal, ok bool) {
	r := wireReader{b: request, text: string(request)}
	if field, format := r.next(); field != askFormat || format.number == 0 || format.number > formatMax {
		return nil, false
	}
	field, items := r.next()
	if field != askRenewLeases || !r.ended() {
		return nil, false
	}
	for r = items.inside; !r.ended(); {
		field, item := r.next()
		var one leaseRenewal
		if field != renewItems || !one.read(item.inside) {
			return nil, false
		}
		asked = append(asked, one)
	}
	return asked, !r.broken
}

func (a *leaseRenewal) read(r wireReader) bool {
	for !r.ended() {
		switch field, v := r.next(); field {
		case itemKey:
			if !a.readKey(v.inside) {
				return false
			}
		case itemTTL:
			a.ttl = time.Duration(v.number) * time.Millisecond
		case itemProof:
			a.proof = v.inside.b
		default:
			return false
		}
	}
	return !r.broken
}

func (a *leaseRenewal) readKey(r wireReader) bool {
	for !r.ended() {
		switch field, v := r.next(); field {
		case keyNamespace:
			a.key.Namespace = v.inside.text
		case keyService:
			a.key.Service = v.inside.text
		case keyID:
			a.key.ID = v.inside.text
		default:
			return false
		}
	}
	return !r.broken
}

// A wireReader goes through the fields of a message.
type wireReader struct {
	b      []byte
	text   string // the same: parts of it cost nothing
	broken bool
}

// A wireValue is a number, or bytes.
type wireValue struct {
	number uint64
	inside wireReader
}

func (r *wireReader) ended() bool { return r.broken || len(r.b) == 0 }

// next reads a field; it is 0 when it is broken, or of a type that none of ours has.
func (r *wireReader) next() (field uint64, v wireValue) {
	field = r.varint()
	switch {
	case r.broken:
	case protowire.Type(field&7) == protowire.VarintType:
		v.number = r.varint()
	case protowire.Type(field&7) == protowire.BytesType:
		v.inside = r.part()
	default:
		r.broken = true
	}
	if r.broken {
		return 0, wireValue{}
	}
	return field, v
}

func (r *wireReader) varint() uint64 {
	v, n := protowire.ConsumeVarint(r.b)
	r.skip(n)
	return v
}

// part reads bytes with their number before them.
func (r *wireReader) part() wireReader {
	size := r.varint()
	if r.broken || size > uint64(len(r.b)) {
		r.broken = true
		return wireReader{}
	}
	part := wireReader{b: r.b[:size:size], text: r.text[:size]}
	r.skip(int(size))
	return part
}

func (r *wireReader) skip(n int) {
	if n < 0 || r.broken {
		r.broken = true
		return
	}
	r.b, r.text = r.b[n:], r.text[n:]
}

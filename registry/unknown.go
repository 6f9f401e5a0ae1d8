package registry

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// unknownMax bounds what one answer lists.
const unknownMax = 32

// KnownFields refuses a request with fields that this version does not know: what a newer
// client asks for must not be ignored. Where they are is looked up only if there are any.
func KnownFields(request proto.Message) error {
	if !hasUnknown(request.ProtoReflect()) {
		return nil
	}
	var bad problems
	findUnknown(request.ProtoReflect(), "", &bad)
	return bad.err()
}

func hasUnknown(m protoreflect.Message) bool {
	if len(m.GetUnknown()) > 0 {
		return true
	}
	fields := m.Descriptor().Fields()
	for n := range fields.Len() {
		f := fields.Get(n)
		switch {
		case f.Message() == nil || !m.Has(f):
		case f.IsList():
			list := m.Get(f).List()
			for i := range list.Len() {
				if hasUnknown(list.Get(i).Message()) {
					return true
				}
			}
		case hasUnknown(m.Get(f).Message()):
			return true
		}
	}
	return false
}

// findUnknown walks a message in the order of its description.
func findUnknown(m protoreflect.Message, at string, bad *problems) {
	if rest := m.GetUnknown(); len(rest) > 0 && len(*bad) < unknownMax {
		number, _, _ := protowire.ConsumeTag(rest)
		bad.add(at+fmt.Sprint(number), fmt.Sprintf("is no field that this member knows in %s: leave it out, or ask a member of a newer version", m.Descriptor().Name()))
	}
	fields := m.Descriptor().Fields()
	for n := range fields.Len() {
		f := fields.Get(n)
		switch {
		case f.Message() == nil || !m.Has(f):
		case f.IsList():
			list := m.Get(f).List()
			for i := range list.Len() {
				findUnknown(list.Get(i).Message(), fmt.Sprintf("%s%s[%d].", at, f.Name(), i), bad)
			}
		default:
			findUnknown(m.Get(f).Message(), fmt.Sprintf("%s%s.", at, f.Name()), bad)
		}
	}
}

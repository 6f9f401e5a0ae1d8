package xds

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// validated is a message of Envoy's with its own rules.
type validated interface {
	proto.Message
	ValidateAll() error
}

// pack checks a message by Envoy's rules and marshals it: equal messages give
// equal bytes. What Envoy would refuse never gets past here.
func pack(m validated) (*anypb.Any, error) {
	if err := m.ValidateAll(); err != nil {
		return nil, fmt.Errorf("check: %w", err)
	}
	packed := new(anypb.Any)
	if err := anypb.MarshalFrom(packed, m, proto.MarshalOptions{Deterministic: true}); err != nil {
		return nil, fmt.Errorf("marshal: %w", err)
	}
	return packed, nil
}

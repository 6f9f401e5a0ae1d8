package rawcalls

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
)

// Pack is what Call takes apart: each message behind its length.
func Pack(messages ...proto.Message) ([]byte, error) {
	var all []byte
	for _, m := range messages {
		b, err := proto.Marshal(m)
		if err != nil {
			return nil, err
		}
		all = append(binary.LittleEndian.AppendUint16(all, uint16(len(b))), b...)
	}
	return all, nil
}

// Call sends messages to one of a service's methods and hears it out, until ctx ends. An error is
// an answer that nobody may be given for what he sends: gRPC's own refusal of bytes that are no
// message is none.
func Call(ctx context.Context, conn grpc.ClientConnInterface, service string, method byte, raw []byte) error {
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
	if err != nil {
		return err
	}
	methods := found.(protoreflect.ServiceDescriptor).Methods()
	m := methods.Get(int(method) % methods.Len())
	messages, sound := unpack(m, raw)
	err = send(ctx, conn, fmt.Sprintf("/%s/%s", service, m.Name()), messages)
	switch code := status.Code(err); {
	case code == codes.Internal && !sound: // it could not be decoded
	case code == codes.Unknown, code == codes.DataLoss, code == codes.Internal:
		return fmt.Errorf("%s ends with %w", m.Name(), err)
	}
	return nil
}

// unpack says whether all are messages of the kind that the method takes.
func unpack(m protoreflect.MethodDescriptor, raw []byte) (messages [][]byte, sound bool) {
	sound = true
	for len(raw) >= 2 && (len(messages) == 0 || m.IsStreamingClient()) {
		n := min(int(binary.LittleEndian.Uint16(raw)), len(raw)-2)
		one := raw[2 : 2+n]
		raw = raw[2+n:]
		messages = append(messages, one)
		sound = sound && proto.Unmarshal(one, dynamicpb.NewMessage(m.Input())) == nil
	}
	if len(messages) == 0 && !m.IsStreamingClient() {
		messages = [][]byte{nil}
	}
	return messages, sound
}

func send(ctx context.Context, conn grpc.ClientConnInterface, method string, messages [][]byte) error {
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method, grpc.ForceCodecV2(asItIs{}))
	if err != nil {
		return err
	}
	for _, one := range messages {
		if err := stream.SendMsg(one); err != nil {
			break // why, is what is received
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	for {
		if err := stream.RecvMsg(new([]byte)); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// asItIs takes bytes for messages.
type asItIs struct{}

func (asItIs) Name() string { return "proto" }

func (asItIs) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}

func (asItIs) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

package grpcapi

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// TestTheExamplesOfTheGRPCDocs makes the calls that docs/grpc.md shows as grpcurl does:
// with nothing but what the server's reflection tells.
func TestTheExamplesOfTheGRPCDocs(t *testing.T) {
	m := newMember(t, nil)
	text, err := os.ReadFile("../../docs/grpc.md")
	if err != nil {
		t.Fatal(err)
	}
	example := regexp.MustCompile(`(?m)^\$ grpcurl -plaintext -d '(.*)' 127\.0\.0\.1:18000 (\S+)/(\S+)\n((?:[^$\n` + "`" + `].*\n)+)`)
	tried := 0
	for _, found := range example.FindAllStringSubmatch(string(text), -1) {
		method := m.reflected(found[2]).Methods().ByName(protoreflect.Name(found[3]))
		mustEqual(t, "the answer to "+found[3], m.call(method, found[1], "", strings.Count(found[4], "\n")), found[4])
		tried++
	}
	mustEqual(t, "how many examples there were", tried, strings.Count(string(text), "$ grpcurl"))
	mustEqual(t, "that there were examples", tried >= 5, true)
}

// reflected is a service as the server describes it.
func (m *member) reflected(service string) protoreflect.ServiceDescriptor {
	m.tb.Helper()
	stream, err := grpc_reflection_v1.NewServerReflectionClient(m.conn).ServerReflectionInfo(m.tb.Context())
	if err != nil {
		m.tb.Fatal(err)
	}
	ask := &grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: service}}
	if err := stream.Send(ask); err != nil {
		m.tb.Fatal(err)
	}
	answer, err := stream.Recv()
	if err != nil {
		m.tb.Fatal(err)
	}
	set := &descriptorpb.FileDescriptorSet{}
	for _, raw := range answer.GetFileDescriptorResponse().GetFileDescriptorProto() {
		file := &descriptorpb.FileDescriptorProto{}
		if err := proto.Unmarshal(raw, file); err != nil {
			m.tb.Fatal(err)
		}
		set.File = append(set.File, file)
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		m.tb.Fatalf("what the server says of %s: %v", service, err)
	}
	found, err := files.FindDescriptorByName(protoreflect.FullName(service))
	if err != nil {
		m.tb.Fatalf("%s: %v", service, err)
	}
	return found.(protoreflect.ServiceDescriptor)
}

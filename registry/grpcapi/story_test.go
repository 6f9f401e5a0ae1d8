package grpcapi

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/protobuf/reflect/protoreflect"

	stellmapv1 "github.com/stellmap/stellmap/api/proto/stellmap/v1"
	"github.com/stellmap/stellmap/registry"
	"github.com/stellmap/stellmap/registry/registrytest"
)

// TestStories runs the stories in testdata: requests, and the answers with all their details.
func TestStories(t *testing.T) {
	registrytest.Stories(t, func(t *testing.T, path string) {
		s := &story{member: newMember(t, func(a *API) { a.limits.partBytes = 200 })}
		datadriven.RunTest(t, path, s.command)
	})
}

type story struct{ member *member }

// faults are what can be wrong with the log, by the word that a story uses.
var faults = map[string]error{
	"none":            nil,
	"no-leader":       registry.ErrNoLeader,
	"busy":            registry.ErrBusy,
	"full":            registry.ErrFull,
	"unknown-outcome": registry.ErrUnknownOutcome,
	"unforeseen":      errors.New("the disk is on fire"),
	"deadline":        context.DeadlineExceeded,
}

func (s *story) command(t *testing.T, d *datadriven.TestData) string {
	switch d.Cmd {
	case "fault":
		fault, known := faults[d.CmdArgs[0].Key]
		if !known {
			t.Fatalf("unknown fault %s", d.CmdArgs[0].Key)
		}
		s.member.set(func() { s.member.log.Fault = fault })
		return "ok\n"
	case "become": // another member's process, from now on
		s.member.set(func() { s.member.home.Incarnation = d.CmdArgs[0].Key })
		return "ok\n"
	case "told": // what region b tells, see registrytest.ToldOf
		registrytest.Tell(t, s.member.api.registry, neighbour, registrytest.ToldOf(t, d.Input)...)
		return "ok\n"
	case "policy": // of a service, in JSON
		var p registry.Policy
		if err := json.Unmarshal([]byte(d.Input), &p); err != nil {
			t.Fatal(err)
		}
		namespace, service, _ := strings.Cut(d.CmdArgs[0].Key, "/")
		if _, err := s.member.api.registry.PutPolicy(t.Context(), "", registry.ServiceKey{Namespace: namespace, Service: service}, p, registry.Writing{}); err != nil {
			return err.Error() + "\n"
		}
		return "ok\n"
	case "call": // a method, an authorization header where there is one, and requests, one a line
		authorization := ""
		if d.HasArg("token") {
			d.ScanArgs(t, "token", &authorization)
			authorization = "Bearer " + authorization
		}
		return s.member.call(methodCalled(t, d.CmdArgs[0].Key), strings.TrimSpace(d.Input), authorization, 0)
	}
	t.Fatalf("unknown command %s", d.Cmd)
	return ""
}

func methodCalled(t *testing.T, name string) protoreflect.MethodDescriptor {
	t.Helper()
	m := stellmapv1.File_stellmap_v1_registry_proto.Services().ByName("RegistryService").Methods().ByName(protoreflect.Name(name))
	if m == nil {
		t.Fatalf("there is no method %s", name)
	}
	return m
}

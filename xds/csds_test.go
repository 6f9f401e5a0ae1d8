package xds

import (
	"context"
	"fmt"
	"strings"
	"testing"

	statusv3 "github.com/envoyproxy/go-control-plane/envoy/service/status/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// configs are what an answer tells, in lines.
func configs(r *statusv3.ClientStatusResponse) string {
	var out strings.Builder
	for _, c := range r.GetConfig() {
		for _, x := range c.GetGenericXdsConfigs() {
			fmt.Fprintf(&out, "%s %s %s has=%v", c.GetNode().GetId(), x.GetName(), x.GetConfigStatus(), len(x.GetXdsConfig().GetValue()) > 0)
			if e := x.GetErrorState(); e != nil {
				fmt.Fprintf(&out, ": %s, refused=%v", e.GetDetails(), len(e.GetFailedConfiguration().GetValue()) > 0)
			}
			out.WriteString("\n")
		}
	}
	return out.String()
}

func idPrefix(text string) []*matcherv3.NodeMatcher {
	return []*matcherv3.NodeMatcher{{NodeId: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: text}}}}
}

func idExact(text string) []*matcherv3.NodeMatcher {
	return []*matcherv3.NodeMatcher{{NodeId: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: text}}}}
}

// Client status tells what clients have accepted, not what they were sent, of the nodes
// that are asked for, once and over a stream.
func TestClientStatusTellsWhatWasAccepted(t *testing.T) {
	m := newMember(t, nil)
	for _, name := range []string{"ledger", "orders", "stock"} {
		m.add(name, 1)
	}
	c := m.delta(nodeOf(t))
	names := []string{"ledger.prod", "orders.prod", "stock.prod"}
	c.subscribe(typeEndpoints, append(names, "nobody.prod")...)
	c.ack(c.wants(typeEndpoints, append(names, "-nobody.prod")...))
	m.add("orders", 2)
	c.nack(c.wants(typeEndpoints, "orders.prod"), "I will not have it")
	m.add("stock", 2)
	c.wants(typeEndpoints, "stock.prod")
	m.add("ledger", 2)
	m.settled()
	client := statusv3.NewClientStatusDiscoveryServiceClient(m.conn)
	ask := func(r *statusv3.ClientStatusRequest) string {
		t.Helper()
		answer, err := client.FetchClientStatus(context.Background(), r)
		if err != nil {
			t.Fatal(err)
		}
		return configs(answer)
	}
	want := "web-1 ledger.prod NOT_SENT has=true\nweb-1 orders.prod ERROR has=true: I will not have it, refused=true\nweb-1 stock.prod STALE has=true\n"
	got := ""
	if !comesTrue(func() bool {
		got = ask(&statusv3.ClientStatusRequest{NodeMatchers: idPrefix("web-")})
		return got == want
	}) {
		t.Errorf("it tells\n%swant\n%s", got, want)
	}
	for _, none := range [][]*matcherv3.NodeMatcher{idPrefix("api"), idExact("web-"), idExact("WEB-1")} {
		if got := ask(&statusv3.ClientStatusRequest{NodeMatchers: none}); got != "" {
			t.Errorf("of others it tells\n%s", got)
		}
	}
	bare := ask(&statusv3.ClientStatusRequest{NodeMatchers: idExact("web-1"), ExcludeResourceContents: true})
	if strings.Contains(bare, "has=true") || strings.Contains(bare, "refused=true") || strings.Count(bare, "\n") != 3 {
		t.Errorf("without contents it tells\n%s", bare)
	}
	stream, err := client.StreamClientStatus(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := stream.Send(&statusv3.ClientStatusRequest{}); err != nil {
			t.Fatal(err)
		}
		if answer, err := stream.Recv(); err != nil || configs(answer) != want {
			t.Fatalf("over a stream it tells\n%s%v", configs(answer), err)
		}
	}
}

// What is not understood and what is too much is refused, with the field.
func TestClientStatusIsBounded(t *testing.T) {
	m := newMember(t, func(_ *Config, l *limits) { l.responseBytes = 2000 })
	for n := range 9 {
		m.add(fmt.Sprintf("s%d", n), 1)
	}
	c := m.delta(nodeOf(t))
	for n := range 9 {
		c.subscribe(typeEndpoints, fmt.Sprintf("s%d.prod", n))
		c.ack(c.wants(typeEndpoints, fmt.Sprintf("s%d.prod", n)))
	}
	eventually(t, "it has them all", func() bool { d := m.detail(DetailQuery{States: []string{"synced"}}); return len(d.Resources) == 9 })
	client := statusv3.NewClientStatusDiscoveryServiceClient(m.conn)
	suffix := []*matcherv3.NodeMatcher{{NodeId: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Suffix{Suffix: "1"}}}}
	for _, one := range []struct {
		request *statusv3.ClientStatusRequest
		code    codes.Code
		says    string
	}{
		{&statusv3.ClientStatusRequest{NodeMatchers: suffix}, codes.InvalidArgument, "node_matchers[0].node_id"},
		{&statusv3.ClientStatusRequest{NodeMatchers: []*matcherv3.NodeMatcher{{NodeMetadatas: []*matcherv3.StructMatcher{{}}}}}, codes.InvalidArgument, "node_matchers[0].node_metadatas"},
		{&statusv3.ClientStatusRequest{NodeMatchers: make([]*matcherv3.NodeMatcher, statusMatchersMax+1)}, codes.InvalidArgument, "at most 100"},
		{&statusv3.ClientStatusRequest{}, codes.ResourceExhausted, "exclude_resource_contents"},
	} {
		_, err := client.FetchClientStatus(context.Background(), one.request)
		if status.Code(err) != one.code || !strings.Contains(err.Error(), one.says) {
			t.Errorf("%v is answered %v, want %v with %s", one.request, err, one.code, one.says)
		}
	}
	m.server.metrics.inquiries.Store(inquiriesMax)
	if _, err := client.FetchClientStatus(context.Background(), &statusv3.ClientStatusRequest{}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("one too many is answered %v", err)
	}
}

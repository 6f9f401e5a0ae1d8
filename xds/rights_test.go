package xds

import (
	"context"
	"fmt"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	statusv3 "github.com/envoyproxy/go-control-plane/envoy/service/status/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/stellmap/stellmap/registry"
)

// workloads have a certificate if their name is NAMESPACE/ACCOUNT; others have a token.
func workloads(ctx context.Context) Identity {
	who := ""
	if by := registry.CallerOf(ctx); by != nil {
		who = by.Who()
	}
	namespace, account, is := strings.Cut(who, "/")
	if !is {
		return Identity{}
	}
	return Identity{Name: "spiffe://test/ns/" + namespace + "/sa/" + account, Namespace: namespace, Account: account}
}

func identified(c *Config, _ *limits) { c.Identify = workloads }

// nodeIn is a node with other metadata than that it is in namespace prod; a value of nil leaves it out.
func nodeIn(t *testing.T, metadata ...any) *corev3.Node {
	n := nodeOf(t, metadata...)
	for key, v := range n.Metadata.Fields {
		if v.AsInterface() == nil {
			delete(n.Metadata.Fields, key)
		}
	}
	return n
}

// What a node says of itself has to agree with what its client has proved: a workload is in
// its namespace and of no other, and nobody is a part of a service that he may not register
// as. The answer says which field is wrong, what it is, and what was proved.
func TestWhatANodeSaysMustAgree(t *testing.T) {
	m := newMember(t, identified)
	m.add("orders", 1)
	m.grant("prod/web", "*.prod", "*.test")
	m.grant("prod/api", "orders.prod")
	m.grant("ann", "orders.prod")
	for name, c := range map[string]struct {
		by    string
		node  *corev3.Node
		words string // of the refusal; "" = it is served
	}{
		"a workload in its own":          {"prod/web", nodeIn(t), ""},
		"… that does not say":            {"prod/web", nodeIn(t, metadataNamespace, nil), ""},
		"… that says another":            {"prod/web", nodeIn(t, metadataNamespace, "test"), `node.metadata["stellmap.namespace"]: is "test", and the certificate of spiffe://test/ns/prod/sa/web is of a workload in namespace "prod"`},
		"… as what it may register as":   {"prod/web", nodeIn(t, metadataService, "orders"), ""},
		"… as its account's, no more":    {"prod/api", nodeIn(t, metadataService, "api"), ""},
		"… as another":                   {"prod/api", nodeIn(t, metadataService, "web"), `node.metadata["stellmap.service"]: is "web", and prod/api may not register instances of service "web" in namespace "prod"`},
		"a token where it sees some":     {"ann", nodeIn(t), ""},
		"… where it sees nothing":        {"ann", nodeIn(t, metadataNamespace, "test"), `node.metadata["stellmap.namespace"]: is "test", and ann may not read instances in namespace "test"`},
		"… that does not say where":      {"ann", nodeIn(t, metadataNamespace, nil), `node.metadata["stellmap.namespace"]: is "default", and ann may not read`},
		"… as a service that it may be":  {"ann", nodeIn(t, metadataService, "orders"), ""},
		"… as one that it may not be":    {"ann", nodeIn(t, metadataService, "shop"), `node.metadata["stellmap.service"]: is "shop", and ann may not register`},
		"nobody, where nobody is asked":  {"", nodeIn(t, metadataNamespace, "test", metadataService, "shop"), ""},
		"who is nobody":                  {"eve", nodeIn(t), "unauthenticated"},
		"a workload as a gateway":        {"prod/web", nodeIn(t, metadataRole, roleGateway), ""},
		"a workload's gateway elsewhere": {"prod/web", nodeIn(t, metadataRole, roleGateway, metadataNamespace, "test"), "stellmap.namespace"},
	} {
		t.Run(name, func(t *testing.T) {
			client := m.as(c.by).delta(c.node)
			client.tb = t
			client.subscribe(typeEndpoints, "orders.prod")
			switch c.words {
			case "":
				client.wants(typeEndpoints, "orders.prod")
			case "unauthenticated":
				mustEnd(t, client.end(t), codes.Unauthenticated, "the token has expired, or it was revoked")
			default:
				mustEnd(t, client.end(t), codes.PermissionDenied, c.words)
			}
		})
	}
}

// A workload that does not say where it is has the services of its own namespace.
func TestAWorkloadIsInItsOwnNamespace(t *testing.T) {
	m := newMember(t, identified)
	m.add("orders", 1)
	m.register(registry.Registration{Namespace: "default", Service: "orders", ID: "1", Endpoints: []registry.Endpoint{{Protocol: "http", Host: addressOf(1), Port: 80}}})
	m.grant("prod/web", "*.prod", "*.default")
	c := m.as("prod/web").delta(nodeIn(t, metadataNamespace, nil))
	c.subscribe(typeCluster)
	c.wants(typeCluster, "orders.prod")
}

// What a node has said of itself is held against its client's rights as long as the
// stream lasts.
func TestAClaimEndsWithTheRightToIt(t *testing.T) {
	m := newMember(t, identified)
	m.add("orders", 1)
	m.grant("ann", "orders.prod", "shop.prod")
	c := m.as("ann").delta(nodeOf(t, metadataService, "shop"))
	c.subscribe(typeCluster)
	c.ack(c.wants(typeCluster, "orders.prod"))
	m.grant("ann", "orders.prod")
	mustEnd(t, c.end(t), codes.PermissionDenied, `is "shop", and ann may not register instances of service "shop"`)
}

// A hundred proxies that may the same, each by rights of its own, have one scope and one
// route table; who may something else has another. Nothing stays when they have gone.
func TestWhoMayTheSameShareAScope(t *testing.T) {
	m := newMember(t, nil)
	m.add("orders", 1)
	m.add("ledger", 2)
	var clients []*deltaClient
	open := func(by string, clusters ...string) {
		c := m.as(by).delta(nodeOf(t))
		c.subscribe(typeCluster)
		c.ack(c.wants(typeCluster, clusters...))
		c.subscribe(typeRoutes, egressName)
		c.ack(c.wants(typeRoutes, egressName))
		clients = append(clients, c)
	}
	before := m.costs()
	for n := range 20 {
		by := fmt.Sprint("token-", n)
		m.grant(by, "*.prod")
		open(by, "ledger.prod", "orders.prod")
	}
	if n := m.costs().since(before).built[typeRoutes]; n != 1 {
		t.Errorf("%d route tables are built for who may the same, want 1", n)
	}
	m.grant("ann", "orders.prod")
	open("ann", "orders.prod")
	open("", "ledger.prod", "orders.prod")
	if n := m.scopes(); n != 3 {
		t.Errorf("there are %d scopes, want one for each rights, and one for those who are not asked", n)
	}
	for _, c := range clients {
		if err := c.stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "nothing is left of them", func() bool { return m.scopes() == 0 })
}

func (m *member) scopes() int {
	m.server.cache.mu.RLock()
	defer m.server.cache.mu.RUnlock()
	return len(m.server.cache.scopes.byKey)
}

// Whoever ends the context of a stream has the client told why.
func TestAStreamEndsInTheWordsOfWhoEndsIt(t *testing.T) {
	m, _ := newLoadMember(t, nil)
	m.add("orders", 1)
	m.grant("ann", "*.prod")
	c := m.as("ann").delta(nodeOf(t))
	c.subscribe(typeEndpoints, "orders.prod")
	c.wants(typeEndpoints, "orders.prod")
	load := m.reporter(nodeOf(t))
	m.people.called("ann").end(status.Error(codes.Unauthenticated, "the certificate is not trusted any more"))
	mustEnd(t, c.end(t), codes.Unauthenticated, "not trusted any more")
	mustEnd(t, load.end(t), codes.Unauthenticated, "not trusted any more")
}

// Load is taken of what the client may see, from who may report it: what is said of
// other services is counted as of none that are known.
func TestLoadIsTakenFromWhoMayReportIt(t *testing.T) {
	m, _ := newLoadMember(t, identified)
	m.add("orders", 1)
	m.add("ledger", 2)
	m.settled()
	m.grant("ann", "orders.prod")
	mustEnd(t, m.as("ann").openLoad(nodeOf(t)).end(t), codes.PermissionDenied, `ann may not report proxies in namespace "prod"`)
	m.grant("prod/web", "*.prod")
	mustEnd(t, m.as("prod/web").openLoad(nodeOf(t, metadataNamespace, "test")).end(t), codes.PermissionDenied, "is of a workload in namespace")
	m.grant("bob", "*.prod")
	c := m.as("bob").reporter(nodeOf(t))
	m.people.called("bob").set("orders.prod") // from the next report on
	c.report(m, ofCluster("orders.prod", ofZone("here", "a", 1, 0, 0)), ofCluster("ledger.prod", ofZone("here", "a", 1, 0, 0)))
	if l := m.server.Load(registry.ServiceKey{Namespace: "prod", Service: "ledger"}); len(l.Clusters) != 0 {
		t.Errorf("of what it may not see it has reported %+v", l)
	}
	if l := m.server.Load(ordersKey); len(l.Clusters) != 1 || m.server.metrics.loadRefused[loadUnknown].Load() != 1 {
		t.Errorf("of what it may see there is %+v", l)
	}
	m.people.called("bob").set()
	if err := c.stream.Send(report(ofCluster("orders.prod", ofZone("here", "a", 1, 0, 0)))); err != nil {
		t.Fatal(err)
	}
	mustEnd(t, c.end(t), codes.Unauthenticated, "good for nothing any more")
}

// Client status is told of the proxies of namespaces that whoever asks may look at.
func TestClientStatusIsOfWhatMayBeLookedAt(t *testing.T) {
	m := newMember(t, nil)
	m.add("orders", 1)
	for n, namespace := range []string{"prod", "test"} {
		node := nodeOf(t, metadataNamespace, namespace)
		node.Id = fmt.Sprint("web-", n)
		c := m.delta(node)
		c.subscribe(typeEndpoints, "orders.prod")
		c.ack(c.wants(typeEndpoints, "orders.prod"))
	}
	eventually(t, "both are known", func() bool { return len(m.server.Proxies()) == 2 })
	m.grant("ann", "*.test")
	client := statusv3.NewClientStatusDiscoveryServiceClient(m.conn)
	for by, want := range map[string]string{"": "web-0 web-1", "ann": "web-1"} {
		answer, err := client.FetchClientStatus(m.as(by).outgoing(), &statusv3.ClientStatusRequest{})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, one := range answer.Config {
			got = append(got, one.Node.Id)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q is told of %v, want %s", by, got, want)
		}
	}
}

// Who may read a service, but not the one that has its name or its port, is told that it is
// withheld, and not for the sake of whom. Who may read both is told that as well.
func TestWithheldNamesNoServiceThatMayNotBeRead(t *testing.T) {
	m, c := newDatabase(t)
	m.add("DB", 1)
	m.add("later", 1)
	c.ack(c.wants(typeCluster, "later.prod"))
	c.ack(c.wants(typeRoutes, egressName))
	m.localPort(t, "db", 5432)
	c.ack(c.wants(typeListener, "tcp~db.prod"))
	m.localPort(t, "later", 5432)
	m.settled()
	for _, by := range []struct {
		may  grant
		whom string
	}{{grant{"DB.prod", "later.prod"}, "service (you may not read which one)"}, {grant{"*.prod"}, "service db in namespace prod"}} {
		ctx := registry.WithCaller(t.Context(), &person{may: by.may})
		key := registry.ServiceKey{Namespace: "prod", Service: "DB"}
		taken, port := "the name db.prod belongs to the older "+by.whom, "local port 5432 is that of "+by.whom+" already"
		if all := m.server.WithheldOf(ctx, key); len(all) != 1 || all[0].Reason != taken {
			t.Errorf("who may read %v is told of a name %+v, want %q", by.may, all, taken)
		}
		if all := m.server.WithheldOf(ctx, registry.ServiceKey{Namespace: "prod", Service: "later"}); len(all) != 1 || !strings.HasPrefix(all[0].Reason, port) {
			t.Errorf("who may read %v is told of a port %+v, want %q", by.may, all, port)
		}
		all, _, err := NewFleet(1, m.server, others{}).Explain(ctx, "web-1", key, "")
		if err != nil || len(all) != 1 || len(all[0].Clusters) != 1 || all[0].Clusters[0].Why != taken {
			t.Errorf("who may read %v is told of a proxy %+v, %v, want %q", by.may, all, err, taken)
		}
	}
}

package client_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/stellmap/stellmap/client"
)

// A process registers what it serves, and is kept registered until it closes the client.
func ExampleClient_Register() {
	servers, end := client.StartServers()
	defer end()
	ctx := context.Background()

	c, err := client.New(client.Config{Servers: servers, Zone: "z1"}) // such as "127.0.0.1:18000"
	if err != nil {
		fmt.Println(err)
		return
	}
	orders, err := c.Register(ctx, client.Registration{
		Service: "orders", ID: "orders-1", TTL: 10 * time.Second,
		Endpoints: []client.Endpoint{{Protocol: "http", Host: "10.0.0.1", Port: 8080}},
		Labels:    map[string]string{"track": "stable"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("registered:", orders.Err() == nil)
	fmt.Println("deregistered:", c.Close() == nil)
	// Output:
	// registered: true
	// deregistered: true
}

// A caller discovers a service once, and picks from what is in memory for each call.
func ExampleService_Picker() {
	servers, end := client.StartServers("orders-1", "orders-2")
	defer end()
	c, ctx, tried := newClient(servers), context.Background(), []client.Pick(nil)
	defer c.Close()

	orders, err := c.Discover(ctx, client.Query{Service: "orders"})
	if err != nil {
		fmt.Println(err)
		return
	}
	picker := orders.Picker(client.PickFrom{Endpoint: "grpc"})
	for range 2 {
		pick, err := picker.Pick(tried...) // another one, where the first did not answer
		if err != nil {
			fmt.Println(err)
			return
		}
		tried = append(tried, pick)
	}
	fmt.Println("two different ones:", tried[0].Address() != tried[1].Address())
	// Output: two different ones: true
}

// Whoever wants to know of every change is given the newest state, and works out what is
// different in it.
func ExampleService_Updates() {
	servers, end := client.StartServers("orders-1", "orders-2")
	defer end()
	c, ctx := newClient(servers), context.Background()
	defer c.Close()

	orders, err := c.Discover(ctx, client.Query{Service: "orders"})
	if err != nil {
		fmt.Println(err)
		return
	}
	var before client.Snapshot
	for latest := range orders.Updates(ctx) {
		for _, change := range client.Changes(before, latest) {
			switch {
			case change.Before == nil:
				fmt.Println("new:", change.After.ID, change.After.Status)
			case change.After == nil:
				fmt.Println("gone:", change.Before.ID)
			default:
				fmt.Println("changed:", change.After.ID, change.After.Status)
			}
		}
		before = latest
		if len(latest.Instances) == 2 {
			break
		}
	}
	// Output:
	// new: orders-1 passing
	// new: orders-2 passing
}

// A connection of grpc-go goes to the instances of a service, as they come and go.
func ExampleClient_Resolver() {
	servers, end := client.StartServers("orders-1")
	defer end()
	c, ctx := newClient(servers), context.Background()
	defer c.Close()

	conn, err := grpc.NewClient("stellmap:///orders", grpc.WithResolvers(c.Resolver()), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	answer, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(answer.GetStatus())
	// Output: SERVING
}

// What was refused says why, and with which field.
func ExampleError() {
	servers, end := client.StartServers()
	defer end()
	c, ctx := newClient(servers), context.Background()
	defer c.Close()

	_, err := c.Register(ctx, client.Registration{Service: "orders", ID: "orders-1"})
	var refused *client.Error
	if errors.As(err, &refused) {
		fmt.Println(refused.Reason)
		for _, field := range refused.Fields {
			fmt.Println(field.Field, field.Description)
		}
	}
	// Output:
	// BAD_REQUEST
	// endpoints is empty: 1 to 32 endpoints
}

func newClient(servers []string) *client.Client {
	c, err := client.New(client.Config{Servers: servers, Zone: "z1"})
	if err != nil {
		panic(err) // the servers are loopback's
	}
	return c
}

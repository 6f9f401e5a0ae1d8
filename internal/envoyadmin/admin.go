package envoyadmin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// bodyBytesMax bounds what is read of a page.
const bodyBytesMax = 64 << 20

// Admin is the admin port of one Envoy.
type Admin struct {
	URL    string // http://127.0.0.1:15000
	Client *http.Client
}

// Ready is nil once Envoy takes traffic.
func (a Admin) Ready(ctx context.Context) error {
	_, err := a.page(ctx, "/ready")
	return err
}

func (a Admin) page(ctx context.Context, path string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, a.URL+path, nil)
	if err != nil {
		return nil, err
	}
	answer, err := a.Client.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, bodyBytesMax))
	if err != nil {
		return nil, fmt.Errorf("read %s of Envoy: %w", path, err)
	}
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("an Envoy answers %s with %d: %.200s", path, answer.StatusCode, body)
	}
	return body, nil
}

// Config is what came over xDS, as /config_dump tells it.
type Config struct {
	Clusters  []string                     // names, sorted
	Endpoints map[string]map[string]string // cluster → address:port → health status that EDS gave it
}

// Config reads /config_dump, and /clusters for the health: what /config_dump
// calls health_status is what Envoy makes of it, ejected outliers included.
func (a Admin) Config(ctx context.Context) (Config, error) {
	var d dump
	if err := a.read(ctx, "/config_dump?include_eds", &d); err != nil {
		return Config{}, err
	}
	var s statuses
	if err := a.read(ctx, "/clusters?format=json", &s); err != nil {
		return Config{}, err
	}
	return d.config(s.health()), nil
}

func (a Admin) read(ctx context.Context, path string, into any) error {
	body, err := a.page(ctx, path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("read %s of Envoy: %w", path, err)
	}
	return nil
}

// address is where an endpoint is, as Envoy writes it.
type address struct {
	SocketAddress struct {
		Address   string `json:"address"`
		PortValue int    `json:"port_value"`
	} `json:"socket_address"`
}

func (a address) String() string {
	return net.JoinHostPort(a.SocketAddress.Address, strconv.Itoa(a.SocketAddress.PortValue))
}

// dump is the part of /config_dump?include_eds that is looked at here.
type dump struct {
	Configs []struct {
		DynamicActiveClusters []struct {
			Cluster struct {
				Name string `json:"name"`
			} `json:"cluster"`
		} `json:"dynamic_active_clusters"`
		DynamicEndpointConfigs []struct {
			EndpointConfig struct {
				ClusterName string `json:"cluster_name"`
				Endpoints   []struct {
					LBEndpoints []struct {
						Endpoint struct {
							Address address `json:"address"`
						} `json:"endpoint"`
					} `json:"lb_endpoints"`
				} `json:"endpoints"`
			} `json:"endpoint_config"`
		} `json:"dynamic_endpoint_configs"`
	} `json:"configs"`
}

// config joins the dump with the health of the endpoints, by cluster and address.
func (d dump) config(health map[[2]string]string) Config {
	c := Config{Endpoints: make(map[string]map[string]string)}
	for _, part := range d.Configs {
		for _, one := range part.DynamicActiveClusters {
			c.Clusters = append(c.Clusters, one.Cluster.Name)
		}
		for _, one := range part.DynamicEndpointConfigs {
			name := one.EndpointConfig.ClusterName
			c.Endpoints[name] = make(map[string]string)
			for _, locality := range one.EndpointConfig.Endpoints {
				for _, lb := range locality.LBEndpoints {
					at := lb.Endpoint.Address.String()
					c.Endpoints[name][at] = health[[2]string{name, at}]
				}
			}
		}
	}
	slices.Sort(c.Clusters)
	return c
}

// statuses is the part of /clusters?format=json that is looked at here.
type statuses struct {
	ClusterStatuses []struct {
		Name         string `json:"name"`
		HostStatuses []struct {
			Address      address `json:"address"`
			HealthStatus struct {
				EDSHealthStatus string `json:"eds_health_status"`
			} `json:"health_status"`
		} `json:"host_statuses"`
	} `json:"cluster_statuses"`
}

// health is what EDS said of each host, by cluster and address.
func (s statuses) health() map[[2]string]string {
	found := make(map[[2]string]string)
	for _, c := range s.ClusterStatuses {
		for _, h := range c.HostStatuses {
			found[[2]string{c.Name, h.Address.String()}] = h.HealthStatus.EDSHealthStatus
		}
	}
	return found
}

// Updates are Envoy's counters of what came over xDS: how much it took, and how
// much it rejected, each time with a NACK.
func (a Admin) Updates(ctx context.Context) (taken, rejected int, err error) {
	err = a.counters(ctx, "update_(success|rejected)$", func(name string, n int) {
		if strings.HasSuffix(name, "update_success") {
			taken += n
		} else {
			rejected += n
		}
	})
	return taken, rejected, err
}

// Retries are how many requests Envoy has tried again, so that callers did not
// notice, to all of its clusters.
func (a Admin) Retries(ctx context.Context) (n int, err error) {
	err = a.counters(ctx, "upstream_rq_retry$", func(_ string, one int) { n += one })
	return n, err
}

// Connections are how often Envoy has connected to a cluster.
func (a Admin) Connections(ctx context.Context, cluster string) (n int, err error) {
	err = a.counters(ctx, "^cluster."+cluster+".upstream_cx_total$", func(_ string, one int) { n += one })
	return n, err
}

// counters reads those whose names match.
func (a Admin) counters(ctx context.Context, filter string, each func(name string, n int)) error {
	body, err := a.page(ctx, "/stats?filter="+filter)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(body)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		n, err := strconv.Atoi(value)
		if err != nil {
			return fmt.Errorf("read /stats: %q is no counter", line)
		}
		each(name, n)
	}
	return nil
}

package envoyadmin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
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
	Endpoints map[string]map[string]string // cluster → address:port → health status
}

// Config reads /config_dump.
func (a Admin) Config(ctx context.Context) (Config, error) {
	body, err := a.page(ctx, "/config_dump?include_eds")
	if err != nil {
		return Config{}, err
	}
	var d dump
	if err := json.Unmarshal(body, &d); err != nil {
		return Config{}, fmt.Errorf("read /config_dump: %w", err)
	}
	return d.config(), nil
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
			EndpointConfig assignment `json:"endpoint_config"`
		} `json:"dynamic_endpoint_configs"`
	} `json:"configs"`
}

type assignment struct {
	ClusterName string `json:"cluster_name"`
	Endpoints   []struct {
		LBEndpoints []struct {
			Endpoint struct {
				Address struct {
					SocketAddress struct {
						Address   string `json:"address"`
						PortValue int    `json:"port_value"`
					} `json:"socket_address"`
				} `json:"address"`
			} `json:"endpoint"`
			HealthStatus string `json:"health_status"`
		} `json:"lb_endpoints"`
	} `json:"endpoints"`
}

func (d dump) config() Config {
	c := Config{Endpoints: make(map[string]map[string]string)}
	for _, part := range d.Configs {
		for _, one := range part.DynamicActiveClusters {
			c.Clusters = append(c.Clusters, one.Cluster.Name)
		}
		for _, one := range part.DynamicEndpointConfigs {
			c.Endpoints[one.EndpointConfig.ClusterName] = one.EndpointConfig.health()
		}
	}
	slices.Sort(c.Clusters)
	return c
}

func (a assignment) health() map[string]string {
	found := make(map[string]string)
	for _, locality := range a.Endpoints {
		for _, lb := range locality.LBEndpoints {
			at := lb.Endpoint.Address.SocketAddress
			found[fmt.Sprintf("%s:%d", at.Address, at.PortValue)] = lb.HealthStatus
		}
	}
	return found
}

// Updates are Envoy's counters of what came over xDS: how much it took, and how
// much it rejected, each time with a NACK.
func (a Admin) Updates(ctx context.Context) (taken, rejected int, err error) {
	body, err := a.page(ctx, "/stats?filter=update_(success|rejected)$")
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(body)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		n, err := strconv.Atoi(value)
		if err != nil {
			return 0, 0, fmt.Errorf("read /stats: %q is no counter", line)
		}
		if strings.HasSuffix(name, "update_success") {
			taken += n
		} else {
			rejected += n
		}
	}
	return taken, rejected, nil
}

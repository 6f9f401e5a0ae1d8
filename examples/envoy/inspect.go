package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// answerBytesMax bounds what is read of an answer.
const answerBytesMax = 16 << 20

// get reads a page.
func (s *scene) get(ctx context.Context, url string) (status int, body []byte, err error) {
	return s.call(ctx, http.MethodGet, url, "")
}

// call sends a request, with a JSON body where there is one, and reads the answer.
func (s *scene) call(ctx context.Context, method, url, body string) (status int, answer []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := s.client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(response.Body, answerBytesMax))
	return response.StatusCode, answer, err
}

func (s *scene) isOK(ctx context.Context, url string) error {
	status, body, err := s.get(ctx, url)
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return fmt.Errorf("%s answers %d: %.200s", url, status, body)
	}
	return nil
}

func (s *scene) envoyAdmin() string {
	return fmt.Sprintf("http://127.0.0.1:%d", s.ports["envoy_admin"])
}

// endpointsInEnvoy is the health of each address that Envoy has for the
// service, as /config_dump tells what came over EDS.
func (s *scene) endpointsInEnvoy(ctx context.Context) (map[string]string, error) {
	status, body, err := s.get(ctx, s.envoyAdmin()+"/config_dump?include_eds")
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("/config_dump answers %d", status)
	}
	var dump configDump
	if err := json.Unmarshal(body, &dump); err != nil {
		return nil, fmt.Errorf("read /config_dump: %w", err)
	}
	return dump.health(host), nil
}

// configDump is the part of /config_dump?include_eds that is looked at here.
type configDump struct {
	Configs []struct {
		DynamicEndpointConfigs []struct {
			EndpointConfig struct {
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
			} `json:"endpoint_config"`
		} `json:"dynamic_endpoint_configs"`
	} `json:"configs"`
}

// health is address:port → health status of a cluster's endpoints.
func (d configDump) health(cluster string) map[string]string {
	found := make(map[string]string)
	for _, c := range d.Configs {
		for _, e := range c.DynamicEndpointConfigs {
			if e.EndpointConfig.ClusterName != cluster {
				continue
			}
			for _, locality := range e.EndpointConfig.Endpoints {
				for _, lb := range locality.LBEndpoints {
					a := lb.Endpoint.Address.SocketAddress
					found[fmt.Sprintf("%s:%d", a.Address, a.PortValue)] = lb.HealthStatus
				}
			}
		}
	}
	return found
}

// updates are Envoy's counters of what came over ADS: how many it took, how
// many it rejected (each a NACK).
func (s *scene) updates(ctx context.Context) (taken, rejected int, err error) {
	_, body, err := s.get(ctx, s.envoyAdmin()+"/stats?filter="+`update_(success|rejected)$`)
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(body)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		n, err := strconv.Atoi(value)
		if err != nil {
			continue // not a counter
		}
		if strings.HasSuffix(name, "update_success") {
			taken += n
		} else {
			rejected += n
		}
	}
	return taken, rejected, nil
}

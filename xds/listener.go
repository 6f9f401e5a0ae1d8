package xds

import (
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
)

const egressAddress = "127.0.0.1"

// buildListener is where a workload's own requests enter its proxy.
func buildListener(port uint32, onDemand bool) (*listenerv3.Listener, error) {
	filters, err := httpFilters()
	if err != nil {
		return nil, err
	}
	manager := managerOf(egressName, filters)
	if onDemand {
		if err := askOnDemand(manager); err != nil {
			return nil, err
		}
	}
	last, err := managing(manager)
	if err != nil {
		return nil, err
	}
	return &listenerv3.Listener{
		Name:             egressName,
		Address:          socketAddress(egressAddress, port),
		TrafficDirection: corev3.TrafficDirection_OUTBOUND,
		FilterChains:     []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{last}}},
	}, nil
}

// managerOf takes requests by the routes of a name.
func managerOf(name string, filters []*hcmv3.HttpFilter) *hcmv3.HttpConnectionManager {
	return &hcmv3.HttpConnectionManager{
		StatPrefix:     name,
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{ConfigSource: overADS(), RouteConfigName: name}},
		UpgradeConfigs: []*hcmv3.HttpConnectionManager_UpgradeConfig{{UpgradeType: "websocket"}},
		HttpFilters:    filters,
	}
}

// managing is the end of a chain that takes requests.
func managing(manager *hcmv3.HttpConnectionManager) (*listenerv3.Filter, error) {
	packed, err := pack(manager)
	if err != nil {
		return nil, fmt.Errorf("connection manager: %w", err)
	}
	return &listenerv3.Filter{
		Name:       "envoy.filters.network.http_connection_manager",
		ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: packed},
	}, nil
}

// httpFilters are those that requests go through, the faults first and the router last.
func httpFilters() ([]*hcmv3.HttpFilter, error) {
	router, err := pack(&routerv3.Router{})
	if err != nil {
		return nil, fmt.Errorf("router: %w", err)
	}
	faults, err := faultFilter()
	if err != nil {
		return nil, err
	}
	return []*hcmv3.HttpFilter{faults, {Name: "envoy.filters.http.router", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: router}}}, nil
}

package xds

import (
	"fmt"
	"math"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	upstreamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/stellmap/stellmap/registry"
)

// A cluster is how a proxy treats the endpoints of one name. Nothing in it moves
// when an instance comes or goes, since any change of a cluster makes Envoy build
// it anew and drain its connections; what is volatile is in endpoint.go.
//
// The numbers make failover work without waiting for a lease. Measured with
// Envoy 1.40 at 200 requests a second: hosts that refuse or vanish are left
// within 0.1 s. A frozen host still accepts connections, so nothing but an active
// check keeps it out; that is why a registered check path is worth a lot.
//
// An Envoy takes the first host that it finds dead out at once, and those that it
// finds within the merge window after that when the window ends, of a second if
// nothing is said: so long it goes on to try them, and spills nothing to another
// region. A short one bounds what many hosts that die together cost: each time it
// ends the cluster's hosts are gone through.
const (
	connectTimeout  = 250 * time.Millisecond
	tcpUserTimeout  = 1500 * time.Millisecond // without it, requests to a vanished host hang for the route's timeout
	outlierInterval = time.Second
	ejectionTime    = registry.BaseEjectionDefault // times the number of ejections so far
	ejectionTimeMax = registry.MaxEjectionDefault
	ejectedShareMax = 100 // percent of the hosts
	localFailures   = 2   // connections in a row that are refused, reset or late
	gatewayFailures = 5   // 502, 503 and 504 in a row
	panicThreshold  = 1   // percent healthy: only when nothing is healthy anywhere
	mergeWindow     = 100 * time.Millisecond

	retryBudget = 100 // percent of the active requests
	retriesMin  = 100

	checkInterval = registry.ActiveIntervalDefault
	checkTimeout  = registry.ActiveIntervalDefault
	checkFailures = 2

	keepaliveIdleSeconds     = 10
	keepaliveIntervalSeconds = 3
	keepaliveProbes          = 3

	linuxTCP            = 6
	linuxTCPUserTimeout = 18 // in milliseconds
)

// buildCluster is the cluster of one endpoint of a service. The rules are those of
// the routes to the service: where they leave retries to the default the cluster has it.
func buildCluster(s *registry.Service, endpoint int, rules routeRules) (*clusterv3.Cluster, error) {
	e := s.Endpoints[endpoint]
	name := clusterName(s.Key, endpoint, e.Name)
	c := &clusterv3.Cluster{
		Name:                      name,
		AltStatName:               statName(name),
		ClusterDiscoveryType:      &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:          &clusterv3.Cluster_EdsClusterConfig{EdsConfig: overADS()},
		ConnectTimeout:            durationpb.New(connectTimeout),
		OutlierDetection:          outlierDetection(),
		CircuitBreakers:           circuitBreakers(),
		UpstreamBindConfig:        userTimeout(),
		UpstreamConnectionOptions: tcpKeepalive(),
		CommonLbConfig:            balancing(),
	}
	d := dialectOf(e.Protocol)
	var retry *routev3.RetryPolicy
	if rules.retryAsAll(endpoint) {
		var err error
		if retry, err = retryPolicy(); err != nil {
			return nil, fmt.Errorf("retry policy: %w", err)
		}
	}
	sni := ""
	if s.Policy.FailoverMode() == registry.FailoverGateway { // checks have no host to take it from, and gateways go by it
		sni = hostsOf(stemOf(s.Key, endpoint, e.Name), endpoint)[0]
	}
	if err := speak(c, d, retry, sni); err != nil {
		return nil, fmt.Errorf("cluster %s: %w", name, err)
	}
	if err := treat(c, s.Policy); err != nil {
		return nil, fmt.Errorf("cluster %s: %w", name, err)
	}
	if check := checkAt(s, endpoint, d); check != nil {
		c.HealthChecks = []*corev3.HealthCheck{check}
		c.IgnoreHealthOnHostRemoval = true // else Envoy keeps a removed host until it fails the check
	}
	return c, nil
}

// checkAt is the active check of an endpoint's hosts: the policy's, or the one
// that they have registered; nil for none.
func checkAt(s *registry.Service, endpoint int, d dialect) *corev3.HealthCheck {
	if path := checkPath(s, endpoint); path != "" {
		return activeCheck(path, d)
	}
	if endpoint > 0 {
		return nil
	}
	return checkOf(s.Policy, d)
}

// overADS is where all further resources come from.
func overADS() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		ResourceApiVersion:    corev3.ApiVersion_V3,
	}
}

// outlierDetection ejects hosts that cannot be reached, at once, and those whose
// gateway answers are errors. An application's own 500 ejects nothing.
func outlierDetection() *clusterv3.OutlierDetection {
	return &clusterv3.OutlierDetection{
		SplitExternalLocalOriginErrors:         true,
		ConsecutiveLocalOriginFailure:          wrapperspb.UInt32(localFailures),
		EnforcingConsecutiveLocalOriginFailure: wrapperspb.UInt32(100),
		ConsecutiveGatewayFailure:              wrapperspb.UInt32(gatewayFailures),
		EnforcingConsecutiveGatewayFailure:     wrapperspb.UInt32(100),
		EnforcingConsecutive_5Xx:               wrapperspb.UInt32(0),
		EnforcingSuccessRate:                   wrapperspb.UInt32(0),
		EnforcingLocalOriginSuccessRate:        wrapperspb.UInt32(0),
		Interval:                               durationpb.New(outlierInterval),
		BaseEjectionTime:                       durationpb.New(ejectionTime),
		MaxEjectionTime:                        durationpb.New(ejectionTimeMax),
		MaxEjectionPercent:                     wrapperspb.UInt32(ejectedShareMax),
		AlwaysEjectOneHost:                     wrapperspb.Bool(true),
	}
}

// circuitBreakers are wide open, but for retries: those may double the load and no more.
func circuitBreakers() *clusterv3.CircuitBreakers {
	open := wrapperspb.UInt32(math.MaxUint32)
	return &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
		MaxConnections:     open,
		MaxPendingRequests: open,
		MaxRequests:        open,
		RetryBudget: &clusterv3.CircuitBreakers_Thresholds_RetryBudget{
			BudgetPercent:       &typev3.Percent{Value: retryBudget},
			MinRetryConcurrency: wrapperspb.UInt32(retriesMin),
		},
	}}}
}

// userTimeout makes the kernel give up a connection whose data nobody acknowledges.
func userTimeout() *corev3.BindConfig {
	return &corev3.BindConfig{SocketOptions: []*corev3.SocketOption{{
		Description: "TCP_USER_TIMEOUT",
		Level:       linuxTCP,
		Name:        linuxTCPUserTimeout,
		Value:       &corev3.SocketOption_IntValue{IntValue: tcpUserTimeout.Milliseconds()},
		State:       corev3.SocketOption_STATE_PREBIND,
	}}}
}

func tcpKeepalive() *clusterv3.UpstreamConnectionOptions {
	return &clusterv3.UpstreamConnectionOptions{TcpKeepalive: &corev3.TcpKeepalive{
		KeepaliveTime:     wrapperspb.UInt32(keepaliveIdleSeconds),
		KeepaliveInterval: wrapperspb.UInt32(keepaliveIntervalSeconds),
		KeepaliveProbes:   wrapperspb.UInt32(keepaliveProbes),
	}}
}

func balancing() *clusterv3.Cluster_CommonLbConfig {
	return &clusterv3.Cluster_CommonLbConfig{
		HealthyPanicThreshold: &typev3.Percent{Value: panicThreshold},
		UpdateMergeWindow:     durationpb.New(mergeWindow),
		LocalityConfigSpecifier: &clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig_{
			LocalityWeightedLbConfig: &clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig{},
		},
	}
}

// httpOptions is where the options of clusters that speak HTTP stand.
const httpOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

// speak sets the dialect, and what of it is sent again; nil = what the routes say.
func speak(c *clusterv3.Cluster, d dialect, retry *routev3.RetryPolicy, sni string) error {
	options := &upstreamv3.HttpProtocolOptions{RetryPolicy: retry}
	switch d {
	case dialectTCP:
		return nil
	case dialectHTTP1:
		options.UpstreamProtocolOptions = explicitly(&upstreamv3.HttpProtocolOptions_ExplicitHttpConfig{
			ProtocolConfig: &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{HttpProtocolOptions: &corev3.Http1ProtocolOptions{}},
		})
	case dialectHTTP2, dialectGRPC:
		options.UpstreamProtocolOptions = explicitly(&upstreamv3.HttpProtocolOptions_ExplicitHttpConfig{
			ProtocolConfig: &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{Http2ProtocolOptions: &corev3.Http2ProtocolOptions{}},
		})
	case dialectHTTPS:
		if err := speakTLS(c, options, sni); err != nil {
			return err
		}
	}
	packed, err := pack(options)
	if err != nil {
		return err
	}
	c.TypedExtensionProtocolOptions = map[string]*anypb.Any{httpOptions: packed}
	return nil
}

func explicitly(c *upstreamv3.HttpProtocolOptions_ExplicitHttpConfig) *upstreamv3.HttpProtocolOptions_ExplicitHttpConfig_ {
	return &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: c}
}

// speakTLS lets the server choose HTTP/2 or HTTP/1.1. The server's name is the
// request's host; its certificate is not verified, since the registry knows of
// no authority that would vouch for it. What is no request asks for sni.
func speakTLS(c *clusterv3.Cluster, options *upstreamv3.HttpProtocolOptions, sni string) error {
	options.UpstreamProtocolOptions = &upstreamv3.HttpProtocolOptions_AutoConfig{AutoConfig: &upstreamv3.HttpProtocolOptions_AutoHttpConfig{
		HttpProtocolOptions:  &corev3.Http1ProtocolOptions{},
		Http2ProtocolOptions: &corev3.Http2ProtocolOptions{},
	}}
	options.UpstreamHttpProtocolOptions = &corev3.UpstreamHttpProtocolOptions{AutoSni: true}
	packed, err := pack(&tlsv3.UpstreamTlsContext{Sni: sni, CommonTlsContext: &tlsv3.CommonTlsContext{AlpnProtocols: []string{"h2", "http/1.1"}}})
	if err != nil {
		return err
	}
	c.TransportSocket = &corev3.TransportSocket{
		Name:       "envoy.transport_sockets.tls",
		ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: packed},
	}
	return nil
}

// activeCheck asks each host again so long after its last answer, or after none has come
// in time; without jitter, and before the cluster's first request as often as after it.
//
// So a host that freezes right after an answer is out after (interval + timeout) *
// failures: 1.6 s, and 1.7 s where others of its cluster were found a moment before it and
// it waits for the end of the merge window. Were a cluster without requests checked every
// 5 s, it would take 6.3 s whenever the hosts freeze soon after the first request: the
// check that is due then was put off before it. What the shorter time costs is that
// clusters which a proxy never calls are checked like those that it calls.
func activeCheck(path string, d dialect) *corev3.HealthCheck {
	http := &corev3.HealthCheck_HttpHealthCheck{Path: path}
	if d == dialectHTTP2 || d == dialectGRPC {
		http.CodecClientType = typev3.CodecClientType_HTTP2
	}
	return &corev3.HealthCheck{
		Interval:           durationpb.New(checkInterval),
		Timeout:            durationpb.New(checkTimeout),
		NoTrafficInterval:  durationpb.New(checkInterval), // a minute if nothing is said
		UnhealthyThreshold: wrapperspb.UInt32(checkFailures),
		HealthyThreshold:   wrapperspb.UInt32(1),
		HealthChecker:      &corev3.HealthCheck_HttpHealthCheck_{HttpHealthCheck: http},
	}
}

// metadataHealthPath is the key of an instance's metadata that names the path of
// its health check over HTTP.
const metadataHealthPath = "health.path"

// checkPath is the path that the hosts of a cluster are checked at; empty = none.
// A cluster has one, so the instance that registered first decides; others take
// part only if theirs is the same (see endpoint.go).
func checkPath(s *registry.Service, endpoint int) string {
	if endpoint != 0 || !dialectOf(s.Endpoints[0].Protocol).isHTTP() || s.Policy != nil && s.Policy.Checks != nil {
		return ""
	}
	var first *registry.Instance
	path := ""
	for _, i := range s.Instances {
		p := ownCheckPath(i)
		if p != "" && (first == nil || i.RegisteredAt < first.RegisteredAt) {
			first, path = i, p
		}
	}
	return path
}

func ownCheckPath(i *registry.Instance) string {
	if i == nil {
		return ""
	}
	path, _ := i.Metadata.Get(metadataHealthPath)
	if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "\r\n\x00") {
		return ""
	}
	return path
}

package main

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// kind is what a setting's value must look like.
type kind int

const (
	kindText kind = iota
	kindName
	kindID
	kindListen
	kindAdvertise
	kindDuration
	kindLevel
	kindFormat
	kindCount
	kindBytes
	kindReserve
	kindBallast
	kindJoin
	kindPrefixes
	kindSelections
	kindFile
	kindSocket
	kindSwitch
	kindPercent
	kindSecret
	kindRoom
	kindInterval
	kindClientAuth
	kindRatio
	kindAuthMode
	kindWord
)

// setting is one key that a file, a variable and a flag can give.
type setting struct {
	key   string
	kind  kind
	value string // the default, as a person would write it
	usage string
}

// settings is the one list of keys; flags, variables, unknown-key checks and
// --help are made from it.
var settings = [...]setting{
	{"node.id", kindID, "1", "this member's id in the cluster, 1 or more, never used twice"},
	{"node.cluster_id", kindID, "100", "the cluster's id; members with another one are refused"},
	{"node.region", kindName, ownRegion, "the region that this cluster is"},
	{"node.zone", kindName, "", "the zone that this member stands in"},
	{"node.data_dir", kindText, "./stellmap-data", "folder of the log and the state; one process at a time"},
	{"server.http_addr", kindListen, "127.0.0.1:8080", "registry over HTTP, health, metrics"},
	{"server.xds_addr", kindListen, "127.0.0.1:18000", "ADS for Envoy, and the registry over gRPC"},
	{"server.grpc_addr", kindListen, "127.0.0.1:19090", "the other members"},
	{"server.admin_addr", kindListen, "127.0.0.1:18080", "administration, health, metrics"},
	{"server.advertise_http_addr", kindAdvertise, "", "what others use instead of http_addr"},
	{"server.advertise_xds_addr", kindAdvertise, "", "what others use instead of xds_addr"},
	{"server.advertise_grpc_addr", kindAdvertise, "", "what others use instead of grpc_addr"},
	{"server.advertise_admin_addr", kindAdvertise, "", "what others use instead of admin_addr"},
	{authModeKey, kindAuthMode, auto, "whether callers must be somebody who may do what they ask for, on or off; auto = off where all listeners are on loopback, or server.insecure_beyond_loopback_without_tls_or_authentication is on, else on"},
	{"auth.replication_token", kindSecret, "", "what other regions and mirrors present that follow this one over grpc_addr, at least 16 characters; empty = whoever reaches it may follow if all listeners are on loopback, or with TLS, which lets in members and replicators only; else nobody"},
	{jwtIssuerKey, kindWord, "", "who vouches by JWTs (OpenID Connect) for callers, as their iss says it; such a caller is /jwt/SUBJECT, and may do what bindings give him; empty = no JWT counts"},
	{jwtAudienceKey, kindWord, "", "what their aud must say, or have among others"},
	{jwtKeysKey, kindFile, "", "file of the keys by which they are signed, a JWK set; it is read every second"},
	{jwtSubjectKey, kindWord, "sub", "the claim that names the caller"},
	{beyondKey, kindSwitch, off, "on = whoever reaches an address that is not on loopback may read and write the registry, join the cluster and read what members and regions say to each other, tokens included, as far as [tls] does not prevent it"},
	{"tls.workload_api", kindSocket, "", "unix:///PATH of a SPIFFE Workload API, which gives this member's certificate, key and authorities in place of tls.cert_file, tls.key_file and tls.ca_file"},
	{"tls.cert_file", kindFile, "", "PEM file of this member's certificate, with the URI spiffe://<trust domain>/region/<node.region>/peer/<node.id>, for servers and clients; empty = no TLS on any port"},
	{"tls.key_file", kindFile, "", "PEM file of its key"},
	{"tls.ca_file", kindFile, "", "PEM file of the authorities whose certificates this member trusts, on all ports"},
	{"tls.crl_file", kindFile, "", "PEM file of revocation lists of these authorities; whoever stands in one is cut off"},
	{"tls.http_client_auth", kindClientAuth, require, "whether those who come to http_addr must bring a certificate, require or optional"},
	{"tls.xds_client_auth", kindClientAuth, require, "the same for xds_addr"},
	{"tls.admin_client_auth", kindClientAuth, require, "the same for admin_addr; grpc_addr always requires one"},
	{"audit.file", kindFile, "", "file of who changed what, and who was not let, of this member alone; empty = there is none"},
	{"audit.max_bytes", kindBytes, "64MiB", "a file of the audit log that is so large is put aside, under its name and the number of its first line"},
	{"audit.keep", kindCount, "10", "how many files that were put aside are kept"},
	{"audit.reads", kindSwitch, off, "whether it also tells who read what, on or off"},
	{"audit.required", kindSwitch, off, "on = while it cannot be written nothing may be changed over this member, but by renewals"},
	{"server.watches_per_address", kindRoom, auto, "how many watches an address may have open on this member; auto = 1000, and any number from this machine"},
	{"limits.requests_per_second", kindRoom, auto, "how many requests a second all clients together may make of this member, renewals refused last and lists first; auto = 5000 for each CPU, and any number where all listeners are on loopback and authentication is off; so for the next five"},
	{"limits.requests_per_second_each", kindRoom, auto, "how many an identity may make, or an address that has none; auto = 2000"},
	{"limits.streams_each", kindRoom, auto, "how many streams and watches an identity may have open at once; auto = 5000"},
	{"limits.streams_per_address", kindRoom, auto, "how many an address may have; auto = 2000"},
	{"limits.connections_per_address", kindRoom, auto, "how many connections an address may have open at once, on all ports together; auto = 1024"},
	{"limits.stream_requests_per_second", kindRoom, auto, "how many requests a second that answer no response are taken from an ADS stream, twice as many at once; the rest waits; auto = 200"},
	{joinKey, kindJoin, "", "admin addresses, host:port, of members of the cluster that this node enters at its first start; several with commas, or as several flags"},
	{"cluster.check_every", kindDuration, "1m", "how often the members compare their states, if something has changed, 1s to 1h"},
	{"xds.stale_start_after", kindDuration, "30s", "without a leader for so long, new ADS streams are served from the last state, 1s to 1h"},
	{"xds.stream_age", kindDuration, "30m", "an ADS stream is ended after so long, a third more or less as it is drawn, so that proxies spread over the members anew, 1s to 1h"},
	{"xds.first_responses_per_second", kindCount, "2000", "so many ADS streams a second may begin; more wait up to 5s, or try another member"},
	{"xds.load_reporting_interval", kindInterval, "10s", "how often proxies and gRPC clients that report their load do so, 1s to 1h, the same on all members; 0 = they are not let"},
	{"health.allow", kindPrefixes, "", "networks such as 10.0.0.0/8 that checks may reach, and no others; those of loopback and link-local must be named here, unless all listeners are on loopback"},
	{"health.deny", kindPrefixes, "", "networks that checks never reach"},
	{"health.ca_file", kindFile, "", "PEM file of the authorities whose certificates checks trust; empty = the system's"},
	{"health.in_flight", kindCount, "512", "how many checks this member makes at the same time"},
	{"health.flap_half_life", kindDuration, "1m", "in this time half of a check's flapping is forgotten, 1s to 1h"},
	{"health.protection", kindSwitch, "on", "whether many leases that run out at once are held back, on or off"},
	{"health.protection_least", kindCount, "5", "so many leases of a zone, a service or the cluster must have run out within their TTL"},
	{"health.protection_percent", kindPercent, "15", "and more than so many in a hundred of its leases, 1 to 99"},
	{"health.protection_limit", kindDuration, "10m", "how long they are held back at most, 1s to 1h"},
	{"snapshot.entries", kindCount, "500000", "a snapshot is taken after so many log entries"},
	{"snapshot.bytes", kindBytes, "256MiB", "or after so much of them"},
	{"snapshot.keep", kindCount, "2", "how many snapshots are kept; the log goes back to the oldest"},
	{"snapshot.tail", kindCount, "10000", "how many log entries stay before the first that is needed"},
	{"storage.segment", kindBytes, "64MiB", "the log's files are begun anew at this size; it is cut file by file"},
	{"storage.reserve", kindReserve, "256MiB", "with less free on the disk of data_dir, what grows is refused; 0 = never"},
	{"storage.ballast", kindBallast, auto, "size of a file whose removal makes room for a start on a full disk; auto = half the reserve, 128MiB at most; 0 = none"},
	{"log.level", kindLevel, "info", "debug, info, warn or error"},
	{"log.format", kindFormat, "text", "text or json"},
	{"trace.endpoint", kindAdvertise, "", "host:port of a collector that takes spans, as OTLP over gRPC, by TLS unless it is on loopback; empty = what OTEL_EXPORTER_OTLP_TRACES_ENDPOINT or OTEL_EXPORTER_OTLP_ENDPOINT say, and without them there are no spans"},
	{"trace.sample_ratio", kindRatio, "0.01", "so many of all changes have a trace, more than 0 to 1, the same on all members"},
}

// The values of a switch.
const (
	on  = "on"
	off = "off"
)

// The values of a client_auth.
const (
	require  = "require"
	optional = "optional"
)

// beyondKey is what has ports beyond loopback open without what should guard them.
const beyondKey = "server.insecure_beyond_loopback_without_tls_or_authentication"

// authModeKey says whether anybody is asked who he is.
const authModeKey = "auth.mode"

// joinKey is whom a node asks that did not found the cluster.
const joinKey = "cluster.join"

// membersKey is the list of tables that only a file can give.
const membersKey = "cluster.members"

// memberKeys are the keys of one [[cluster.members]] table.
var memberKeys = [...]setting{
	{"id", kindID, "", ""},
	{"http", kindAdvertise, "", ""},
	{"xds", kindAdvertise, "", ""},
	{"grpc", kindAdvertise, "", ""},
	{"admin", kindAdvertise, "", ""},
}

// flag is the setting's command-line name: server.http_addr is --http-addr.
func (s setting) flag() string {
	section, name, _ := strings.Cut(s.key, ".")
	name = strings.ReplaceAll(name, "_", "-")
	if section == "xds" || section == "tls" || section == "audit" || section == "log" || section == "storage" || section == "snapshot" || section == "health" || section == "trace" || name == "id" || s.key == authModeKey {
		return section + "-" + name
	}
	return name
}

// shown is what messages say of a value: of a secret nothing.
func (s setting) shown(what string) string {
	if s.kind == kindSecret {
		return "something else"
	}
	return what
}

// variable is the setting's environment name: STELLMAP_SERVER_HTTP_ADDR.
func (s setting) variable() string {
	return "STELLMAP_" + strings.ToUpper(strings.ReplaceAll(s.key, ".", "_"))
}

// addFlags gives the flag set one flag for each setting.
func addFlags(flags *pflag.FlagSet) {
	for _, s := range settings {
		usage := s.usage
		if s.value != "" {
			usage += " (default " + s.value + ")"
		}
		if s.kind == kindJoin {
			flags.Var(new(addressList), s.flag(), usage)
			continue
		}
		flags.String(s.flag(), "", usage)
	}
}

// addressList is a flag that may be given several times, each with one address or more.
type addressList string

func (a *addressList) Set(value string) error {
	if *a != "" {
		value = string(*a) + "," + value
	}
	*a = addressList(value)
	return nil
}

func (a *addressList) String() string { return string(*a) }

// Type is what --help says of the value.
func (a *addressList) Type() string { return "string" }

func (k kind) wants() string {
	switch k {
	case kindID, kindCount, kindPercent:
		return "a whole number"
	case kindRatio:
		return "a number"
	case kindRoom:
		return `a whole number or "auto"`
	case kindBytes, kindReserve, kindBallast:
		return `a text such as "256MiB"`
	case kindDuration, kindInterval:
		return `a text such as "30s"`
	case kindJoin:
		return `a list such as ["127.0.0.1:18080"]`
	case kindPrefixes:
		return `a list such as ["10.0.0.0/8"]`
	case kindSelections:
		return `a list such as ["prod/orders", "shop/*"]`
	default:
		return "a text"
	}
}

var namePattern = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?$`)

// Bounds of durations.
const (
	durationMin = time.Second
	durationMax = time.Hour
)

// check says why a value cannot be used, or "".
func (k kind) check(value string) string {
	switch k {
	case kindID:
		if n, err := strconv.ParseUint(value, 10, 63); err != nil || n == 0 {
			return fmt.Sprintf("%q is not a whole number from 1 to 2^63-1", value)
		}
	case kindName:
		if value != "" && (len(value) > 63 || !namePattern.MatchString(value)) {
			return fmt.Sprintf("%q is not a name: letters, digits, - and _, at most 63", value)
		}
	case kindText:
		if strings.TrimSpace(value) == "" {
			return "is empty"
		}
	case kindListen:
		return checkListen(value)
	case kindAdvertise:
		if value != "" {
			return checkHostPort(value)
		}
	case kindJoin:
		return checkJoinList(value)
	case kindPrefixes:
		_, err := parsePrefixes(value)
		if err != nil {
			return err.Error()
		}
	case kindDuration:
		d, err := time.ParseDuration(value)
		if err != nil || d < durationMin || d > durationMax {
			return fmt.Sprintf("%q is not a time from %v to %v, such as \"30s\"", value, durationMin, durationMax)
		}
	case kindInterval:
		if reason := kindDuration.check(value); reason != "" && value != none {
			return reason + ", or 0"
		}
	case kindCount:
		if n, err := strconv.ParseUint(value, 10, 63); err != nil || n == 0 {
			return fmt.Sprintf("%q is not a whole number from 1 on", value)
		}
	case kindBytes:
		n, ok := parseBytes(value)
		if !ok {
			return fmt.Sprintf("%q is not a size such as \"256MiB\": a whole number with B, KiB, MiB or GiB", value)
		}
		if n < sizeMin || n > sizeMax {
			return fmt.Sprintf("%q is not from 64KiB to 64GiB", value)
		}
	case kindReserve, kindBallast:
		if value == none || k == kindBallast && value == auto {
			return ""
		}
		if reason := kindBytes.check(value); reason != "" && k == kindBallast {
			return reason + ", or 0 or auto"
		} else if reason != "" {
			return reason + ", or 0"
		}
	case kindLevel:
		return oneOf(value, "debug", "info", "warn", "error")
	case kindFormat:
		return oneOf(value, "text", "json")
	case kindSwitch:
		return oneOf(value, on, off)
	case kindAuthMode:
		return oneOf(value, auto, on, off)
	case kindClientAuth:
		return oneOf(value, require, optional)
	case kindSocket:
		if path, is := strings.CutPrefix(value, "unix://"); value != "" && !(is && strings.HasPrefix(path, "/")) {
			return fmt.Sprintf("%q is no socket such as \"unix:///run/spire/agent.sock\"", value)
		}
	case kindSecret:
		return checkSecret(value)
	case kindWord:
		return checkWord(value)
	case kindRoom:
		if n, err := strconv.ParseUint(value, 10, 31); value != auto && (err != nil || n == 0) {
			return fmt.Sprintf("%q is neither auto nor a whole number from 1 to %d", value, math.MaxInt32)
		}
	case kindRatio:
		if n, err := strconv.ParseFloat(value, 64); err != nil || !(n > 0 && n <= 1) {
			return fmt.Sprintf("%q is not a number above 0, up to 1, such as 0.01", value)
		}
	case kindPercent:
		if n, err := strconv.ParseUint(value, 10, 63); err != nil || n < 1 || n > 99 {
			return fmt.Sprintf("%q is not a whole number from 1 to 99", value)
		}
	}
	return ""
}

// Bounds of sizes.
const (
	sizeMin = 64 << 10
	sizeMax = 64 << 30
)

// byteUnits are the units of sizes, the longer names first.
var byteUnits = [...]struct {
	name  string
	shift uint
}{{"KiB", 10}, {"MiB", 20}, {"GiB", 30}, {"B", 0}}

// parseBytes reads a size such as 256MiB.
func parseBytes(value string) (uint64, bool) {
	for _, u := range byteUnits {
		digits, ok := strings.CutSuffix(value, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 32)
		return n << u.shift, err == nil
	}
	return 0, false
}

func oneOf(value string, choices ...string) string {
	for _, c := range choices {
		if value == c {
			return ""
		}
	}
	return fmt.Sprintf("%q is none of %s", value, strings.Join(choices, ", "))
}

// Bounds of secrets.
const (
	secretMin = 16
	secretMax = 256
)

// checkSecret does not show what it looks at: what is wrong is printed and logged.
func checkSecret(value string) string {
	switch {
	case value == "":
		return ""
	case len(value) < secretMin || len(value) > secretMax:
		return fmt.Sprintf("has %d characters, want %d to %d", len(value), secretMin, secretMax)
	case strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "has characters that no header has: want printable ASCII without blanks"
	}
	return ""
}

func checkHostPort(value string) string {
	host, port, err := net.SplitHostPort(value)
	if err != nil || host == "" {
		return fmt.Sprintf("%q is not host:port", value)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Sprintf("%q: the port is not a number from 1 to 65535", value)
	}
	return ""
}

// checkJoinList takes the addresses as a variable or a flag gives them.
func checkJoinList(value string) string {
	if value == "" {
		return ""
	}
	for one := range strings.SplitSeq(value, ",") {
		if reason := checkHostPort(one); reason != "" {
			return reason
		}
	}
	return ""
}

// parsePrefixes reads networks, or single addresses, as a variable or a flag gives them.
func parsePrefixes(value string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for one := range strings.SplitSeq(value, ",") {
		if value == "" {
			break
		}
		one = strings.TrimSpace(one)
		if ip, err := netip.ParseAddr(one); err == nil && ip.Zone() == "" {
			out = append(out, netip.PrefixFrom(ip.Unmap(), ip.Unmap().BitLen()))
			continue
		}
		p, err := netip.ParsePrefix(one)
		if err != nil || p != p.Masked() {
			return nil, fmt.Errorf("%q is not a network such as \"10.0.0.0/8\", or an address", one)
		}
		out = append(out, p)
	}
	return out, nil
}

func checkListen(value string) string {
	_, port, err := net.SplitHostPort(value)
	if err != nil {
		return fmt.Sprintf("%q is not host:port", value)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Sprintf("%q: the port is not a number from 0 to 65535", value)
	}
	return ""
}

// onLoopback tells of an address that is host:port.
func onLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}

// nearest is the known key that a typing error is closest to, or "".
func nearest(name string, known map[string]bool) string {
	keys := make([]string, 0, len(known))
	for k := range known {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	best, bestDistance := "", 4 // further away than three edits is another word
	for _, k := range keys {
		if d := editDistance(name, k); d < bestDistance {
			best, bestDistance = k, d
		}
	}
	return best
}

// editDistance is Levenshtein's.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			diagonal, row[j] = row[j], min(row[j]+1, row[j-1]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}

package main

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"

	"github.com/stellmap/stellmap/registry"
)

// Config is everything that can be set. Its shape is the shape of
// stellmapd.toml; settings.go gives names, defaults and bounds.
type Config struct {
	Node struct {
		ID        uint64 `mapstructure:"id"`
		ClusterID uint64 `mapstructure:"cluster_id"`
		Region    string `mapstructure:"region"`
		Zone      string `mapstructure:"zone"`
		DataDir   string `mapstructure:"data_dir"`
	} `mapstructure:"node"`
	Server struct {
		HTTPAddr           string `mapstructure:"http_addr"`
		XDSAddr            string `mapstructure:"xds_addr"`
		GRPCAddr           string `mapstructure:"grpc_addr"`
		AdminAddr          string `mapstructure:"admin_addr"`
		AdvertiseHTTPAddr  string `mapstructure:"advertise_http_addr"`
		AdvertiseXDSAddr   string `mapstructure:"advertise_xds_addr"`
		AdvertiseGRPCAddr  string `mapstructure:"advertise_grpc_addr"`
		AdvertiseAdminAddr string `mapstructure:"advertise_admin_addr"`

		InsecureBeyondLoopback string `mapstructure:"insecure_beyond_loopback_without_tls_or_authentication"`

		WatchesPerAddress string `mapstructure:"watches_per_address"`
	} `mapstructure:"server"`
	Auth   AuthConfig `mapstructure:"auth"`
	Limits struct {
		Requests              string `mapstructure:"requests_per_second"`
		RequestsEach          string `mapstructure:"requests_per_second_each"`
		StreamsEach           string `mapstructure:"streams_each"`
		StreamsPerAddress     string `mapstructure:"streams_per_address"`
		ConnectionsPerAddress string `mapstructure:"connections_per_address"`
		StreamRequests        string `mapstructure:"stream_requests_per_second"`
	} `mapstructure:"limits"`
	TLS struct {
		WorkloadAPI     string `mapstructure:"workload_api"`
		CertFile        string `mapstructure:"cert_file"`
		KeyFile         string `mapstructure:"key_file"`
		CAFile          string `mapstructure:"ca_file"`
		CRLFile         string `mapstructure:"crl_file"`
		HTTPClientAuth  string `mapstructure:"http_client_auth"`
		XDSClientAuth   string `mapstructure:"xds_client_auth"`
		AdminClientAuth string `mapstructure:"admin_client_auth"`
	} `mapstructure:"tls"`
	Audit   AuditConfig `mapstructure:"audit"`
	Cluster struct {
		Members    []MemberConfig `mapstructure:"members"`
		Join       []string       `mapstructure:"join"`
		CheckEvery time.Duration  `mapstructure:"check_every"`
	} `mapstructure:"cluster"`
	Federation struct {
		Regions []RegionConfig `mapstructure:"regions"`
		Export  []string       `mapstructure:"export"` // nil = everything
	} `mapstructure:"federation"`
	XDS struct {
		StaleStartAfter time.Duration `mapstructure:"stale_start_after"`
		StreamAge       time.Duration `mapstructure:"stream_age"`
		FirstResponses  int           `mapstructure:"first_responses_per_second"`
		LoadEvery       time.Duration `mapstructure:"load_reporting_interval"`
	} `mapstructure:"xds"`
	Health struct {
		Allow             []string      `mapstructure:"allow"`
		Deny              []string      `mapstructure:"deny"`
		CAFile            string        `mapstructure:"ca_file"`
		InFlight          uint64        `mapstructure:"in_flight"`
		FlapHalfLife      time.Duration `mapstructure:"flap_half_life"`
		Protection        string        `mapstructure:"protection"`
		ProtectionLeast   uint64        `mapstructure:"protection_least"`
		ProtectionPercent int           `mapstructure:"protection_percent"`
		ProtectionLimit   time.Duration `mapstructure:"protection_limit"`
	} `mapstructure:"health"`
	Snapshot struct {
		Entries uint64 `mapstructure:"entries"`
		Bytes   uint64 `mapstructure:"bytes"`
		Keep    uint64 `mapstructure:"keep"`
		Tail    uint64 `mapstructure:"tail"`
	} `mapstructure:"snapshot"`
	Storage struct {
		Segment uint64 `mapstructure:"segment"`
		Reserve string `mapstructure:"reserve"`
		Ballast string `mapstructure:"ballast"`
	} `mapstructure:"storage"`
	Log struct {
		Level  string `mapstructure:"level"`
		Format string `mapstructure:"format"`
	} `mapstructure:"log"`
	Trace struct {
		Endpoint    string  `mapstructure:"endpoint"`
		SampleRatio float64 `mapstructure:"sample_ratio"`

		url string // of the collector; empty = there is none
	} `mapstructure:"trace"`
}

// MemberConfig is one [[cluster.members]] table: a founder of the cluster and
// the addresses at which the others reach it.
type MemberConfig struct {
	ID    uint64 `mapstructure:"id"`
	HTTP  string `mapstructure:"http"`
	XDS   string `mapstructure:"xds"`
	GRPC  string `mapstructure:"grpc"`
	Admin string `mapstructure:"admin"`
}

// configBytesMax bounds the configuration file.
const configBytesMax = 1 << 20

// ConfigError lists all that is wrong with the settings, in the order of the
// file.
type ConfigError struct{ Problems []Problem }

// Problem is one setting that cannot be used.
type Problem struct {
	Origin string // "stellmapd.toml:14:1", "env STELLMAP_NODE_ID", "flag --node-id" or "default"
	Reason string // names the key, says what is wrong and what is allowed
}

func (e *ConfigError) Error() string {
	var b strings.Builder
	for _, p := range e.Problems {
		fmt.Fprintf(&b, "%s  %s\n", p.Origin, p.Reason)
	}
	noun := "problems"
	if len(e.Problems) == 1 {
		noun = "problem"
	}
	fmt.Fprintf(&b, "%d %s, not started.", len(e.Problems), noun)
	return b.String()
}

// loader gathers the values of one start and what is wrong with them.
type loader struct {
	path     string // of the file, "" for none
	file     tomlFile
	viper    *viper.Viper
	flags    *pflag.FlagSet
	lookup   func(string) (string, bool) // the environment
	problems []Problem
}

// loadConfig reads the settings: defaults < file < environment < flags. The
// error is a *ConfigError unless the file could not be read.
func loadConfig(path string, flags *pflag.FlagSet, lookup func(string) (string, bool)) (Config, error) {
	l := &loader{path: path, viper: viper.New(), flags: flags, lookup: lookup}
	if err := l.readFile(); err != nil {
		return Config{}, err
	}
	l.merge()
	l.checkValues()
	var c Config
	if len(l.problems) == 0 {
		l.countBytes()
		if err := l.viper.Unmarshal(&c); err != nil {
			return Config{}, fmt.Errorf("decode settings: %w", err)
		}
		c.fill()
		l.findCollector(&c)
		l.checkTogether(c)
	}
	if len(l.problems) > 0 {
		return Config{}, &ConfigError{l.problems}
	}
	return c, nil
}

func (l *loader) readFile() error {
	if l.path == "" {
		return nil
	}
	info, err := os.Stat(l.path)
	if err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	if info.Size() > configBytesMax {
		return fmt.Errorf("read the configuration %s: %d bytes, more than %d", l.path, info.Size(), configBytesMax)
	}
	data, err := os.ReadFile(l.path)
	if err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	l.viper.SetConfigType("toml")
	l.file, err = parseTOML(data)
	if err == nil {
		err = l.viper.ReadConfig(bytes.NewReader(data))
	}
	for _, k := range l.file.twice {
		l.addAt(k.pos, "%q is given twice", k.name)
	}
	var syntax *tomlError
	if errors.As(err, &syntax) {
		l.addAt(syntax.pos, "not TOML: %s", syntax.reason)
	} else if huge := l.file.huge(); len(huge) > 0 {
		for _, key := range huge {
			at := l.file.values[key]
			l.addAt(at.pos, "%s: %s is beyond the whole numbers that TOML has, 64 bits with a sign", key, at.what)
		}
	} else if err != nil && len(l.file.twice) == 0 {
		return fmt.Errorf("read the configuration %s: %w", l.path, err)
	}
	l.checkKeys()
	return nil
}

// merge lays variables and flags over the file.
func (l *loader) merge() {
	for _, s := range settings {
		l.viper.SetDefault(s.key, s.value)
		if value, ok := l.lookup(s.variable()); ok {
			l.viper.Set(s.key, value)
		}
		if f := l.flags.Lookup(s.flag()); f != nil && f.Changed {
			l.viper.Set(s.key, f.Value.String())
		}
	}
}

// origin says where the value of a setting comes from.
func (l *loader) origin(s setting) string {
	if f := l.flags.Lookup(s.flag()); f != nil && f.Changed {
		return "flag --" + s.flag()
	}
	if _, ok := l.lookup(s.variable()); ok {
		return "env " + s.variable()
	}
	if at, ok := l.file.values[s.key]; ok {
		return l.at(at.pos)
	}
	return "default"
}

func (l *loader) at(p position) string {
	return fmt.Sprintf("%s:%d:%d", l.path, p.line, p.column)
}

func (l *loader) add(origin, format string, args ...any) {
	l.problems = append(l.problems, Problem{origin, fmt.Sprintf(format, args...)})
}

func (l *loader) addAt(p position, format string, args ...any) {
	l.add(l.at(p), format, args...)
}

// checkKeys refuses keys that no setting has, with what may have been meant.
func (l *loader) checkKeys() {
	known := map[string]bool{"cluster": true, membersKey: true, "federation": true, regionsKey: true, exportKey: true}
	for _, s := range settings {
		section, _, _ := strings.Cut(s.key, ".")
		known[section], known[s.key] = true, true
	}
	for _, s := range memberKeys {
		known[membersKey+"."+s.key] = true
	}
	for _, s := range regionKeys {
		known[regionsKey+"."+s.key] = true
	}
	unknown := "" // the table that the last problem was about
	for _, k := range l.file.keys {
		name := memberIndex.ReplaceAllString(k.name, "")
		if known[name] || (unknown != "" && strings.HasPrefix(name, unknown)) {
			continue
		}
		hint := ""
		if near := nearest(name, known); near != "" {
			hint = fmt.Sprintf(" (did you mean %q?)", near)
		}
		l.addAt(k.pos, "unknown key %q%s", name, hint)
		unknown = name + "."
	}
}

// memberIndex is the [n] that tells one table of a list from the next.
var memberIndex = regexp.MustCompile(`\[\d+\]`)

func (l *loader) checkValues() {
	for _, s := range settings {
		if at, ok := l.file.values[s.key]; ok && l.origin(s) == l.at(at.pos) && at.wrong(s.kind) {
			l.addAt(at.pos, "%s: want %s, got %s", s.key, s.kind.wants(), s.shown(at.what))
			continue
		}
		if reason := s.kind.check(l.text(s)); reason != "" {
			l.add(l.origin(s), "%s: %s", s.key, reason)
		} else if reason := l.beyond(s); reason != "" {
			l.add(l.origin(s), "%s: %s", s.key, reason)
		}
	}
	if at, ok := l.file.values[exportKey]; ok && at.wrong(kindSelections) {
		l.addAt(at.pos, "%s: want %s, got %s", exportKey, kindSelections.wants(), at.what)
	}
	l.checkLists()
	l.checkMembers()
	l.checkRegions()
}

// checkLists refuses a list of tables that is not written as tables: what is in another
// form would be read, and looked at by nobody.
func (l *loader) checkLists() {
	for _, list := range []struct {
		key   string
		heads []position
	}{{membersKey, l.file.members}, {regionsKey, l.file.regions}} {
		for _, k := range l.file.keys {
			if k.name == list.key && !slices.Contains(list.heads, k.pos) || strings.HasPrefix(k.name, list.key+".") {
				l.addAt(k.pos, "%s: write [[%s]], one table for each", k.name, list.key)
				break
			}
		}
	}
}

// text is a setting's value as a variable or a flag would give it.
func (l *loader) text(s setting) string {
	list, ok := l.viper.Get(s.key).([]any)
	if !ok {
		return l.viper.GetString(s.key)
	}
	parts := make([]string, len(list))
	for i, one := range list {
		parts[i] = fmt.Sprint(one)
	}
	return strings.Join(parts, ",")
}

// countBytes puts numbers in place of sizes, which have been checked.
func (l *loader) countBytes() {
	for _, s := range settings {
		if s.kind == kindBytes {
			n, _ := parseBytes(l.viper.GetString(s.key))
			l.viper.Set(s.key, n)
		}
	}
}

// checkMembers looks at each [[cluster.members]] table of the file.
func (l *loader) checkMembers() {
	for i, table := range l.file.members {
		for _, s := range memberKeys {
			key := fmt.Sprintf("%s[%d].%s", membersKey, i, s.key)
			at, ok := l.file.values[key]
			switch {
			case !ok:
				l.addAt(table, "%s: missing, every member needs id, http, xds, grpc and admin", key)
			case at.wrong(s.kind):
				l.addAt(at.pos, "%s: want %s, got %s", key, s.kind.wants(), at.what)
			default:
				if reason := s.kind.check(at.text); reason != "" {
					l.addAt(at.pos, "%s: %s", key, reason)
				} else if at.text == "" {
					l.addAt(at.pos, "%s: empty, want host:port", key)
				}
			}
		}
	}
}

// fill puts in what one setting takes from another.
func (c *Config) fill() {
	for _, p := range []struct{ advertise, listen *string }{
		{&c.Server.AdvertiseHTTPAddr, &c.Server.HTTPAddr},
		{&c.Server.AdvertiseXDSAddr, &c.Server.XDSAddr},
		{&c.Server.AdvertiseGRPCAddr, &c.Server.GRPCAddr},
		{&c.Server.AdvertiseAdminAddr, &c.Server.AdminAddr},
	} {
		if *p.advertise == "" {
			*p.advertise = *p.listen
		}
	}
	if len(c.Cluster.Members) == 0 && len(c.Cluster.Join) == 0 {
		c.Cluster.Members = []MemberConfig{c.self()}
	}
}

// preservation is when leases that run out are held back.
func (c *Config) preservation() registry.Preservation {
	h := c.Health
	return registry.Preservation{
		Off: h.Protection == off, Least: int(min(h.ProtectionLeast, math.MaxInt32)), Percent: h.ProtectionPercent, Limit: h.ProtectionLimit,
	}
}

// watchesPerAddress is 0 for auto.
func (c *Config) watchesPerAddress() int {
	n, err := strconv.Atoi(c.Server.WatchesPerAddress)
	if err != nil { // auto: whatever else it could be was refused
		return 0
	}
	return n
}

// self is this member as the others see it.
func (c *Config) self() MemberConfig {
	s := c.Server
	return MemberConfig{c.Node.ID, s.AdvertiseHTTPAddr, s.AdvertiseXDSAddr, s.AdvertiseGRPCAddr, s.AdvertiseAdminAddr}
}

// checkTogether looks at what only several settings together can get wrong.
func (l *loader) checkTogether(c Config) {
	l.checkListeners(c)
	l.checkTLS(c)
	l.checkAuth(c)
	l.checkJWT(c)
	l.checkAudit(c)
	l.checkHealth(c)
	l.checkSources(c)
	l.checkExport(c)
	if len(c.Cluster.Join) > 0 {
		l.checkJoin()
		return
	}
	seen := make(map[uint64]int)
	for i, m := range c.Cluster.Members {
		if first, ok := seen[m.ID]; ok {
			at := l.file.values[fmt.Sprintf("%s[%d].id", membersKey, i)]
			l.addAt(at.pos, "%s[%d].id: %d is also the id of member %d; every member has its own", membersKey, i, m.ID, first)
		}
		seen[m.ID] = i
	}
	if i, ok := seen[c.Node.ID]; !ok {
		l.add(l.origin(settings[0]), "node.id: %d is not among %s; add its table or correct the id", c.Node.ID, membersKey)
	} else if len(l.file.members) > 0 {
		l.checkSelf(i, c.Cluster.Members[i], c.self())
	}
}

// checkJoin: whoever asks to be taken in has no say in who the members are.
func (l *loader) checkJoin() {
	if len(l.file.members) > 0 {
		l.addAt(l.file.members[0], "%s: these found a cluster, and %s enters one that is there: leave one of the two out", membersKey, joinKey)
	}
}

// checkSelf holds the node's own table in the members' list against [server]:
// the others would look for it where it is not.
func (l *loader) checkSelf(i int, listed, own MemberConfig) {
	for _, p := range []struct{ name, listed, own string }{
		{"http", listed.HTTP, own.HTTP},
		{"xds", listed.XDS, own.XDS},
		{"grpc", listed.GRPC, own.GRPC},
		{"admin", listed.Admin, own.Admin},
	} {
		if p.listed != p.own {
			key := fmt.Sprintf("%s[%d].%s", membersKey, i, p.name)
			l.addAt(l.file.values[key].pos, "%s: %s is this node, which says %s (server.%s_addr or server.advertise_%s_addr)", key, p.listed, p.own, p.name, p.name)
		}
	}
}

// checkListeners refuses two listeners on one address.
func (l *loader) checkListeners(c Config) {
	seen := make(map[string]string)
	for _, s := range settings {
		if s.kind != kindListen {
			continue
		}
		addr := l.viper.GetString(s.key)
		if other, ok := seen[addr]; ok && !strings.HasSuffix(addr, ":0") {
			l.add(l.origin(s), "%s: %s is already %s; each listener needs its own port", s.key, addr, other)
		}
		seen[addr] = s.key
	}
}

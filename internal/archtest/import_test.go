package archtest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// picture is who may import whom inside the module. A folder stands for all
// below it unless they have a line of their own. What is not drawn is not allowed.
var picture = map[string][]string{
	"storage":               {},
	"storage/crashfs":       {},
	"storage/crashtest":     {},
	"consensus":             {"storage"},
	"consensus/peer":        {"consensus"},
	"consensus/simulate":    {"consensus", "registry", "registry/probe", "storage"}, // a test of the whole: it joins them as cmd does
	"registry":              {"storage"},
	"registry/httpapi":      {"registry", "access/audit"},
	"registry/grpcapi":      {"registry", "access/audit"},
	"registry/probe":        {"registry"},
	"registry/registrytest": {"registry", "storage"}, // what tests of the rooms above the registry stand on
	"xds":                   {"registry"},
	"federation":            {"registry"},
	"access":                {},
	"access/audit":          {},
	"access/authority":      {}, // for development: a tool of stellmapctl and of tests
	"client":                {},
	"cmd":                   {"storage", "consensus", "registry", "xds", "federation", "access", "client"},
	"api/proto":             {},
	"examples":              {},
	"bench":                 {},
	"internal/version":      {},
	"internal/threads":      {},
	"internal/process":      {},
	"internal/freeport":     {},
	"internal/envoyadmin":   {},
	"internal/archtest":     {},
	"internal/dist":         {},
	"internal/e2e":          {},
	"internal/grpcclients":  {"internal/process"},
	"internal/rawcalls":     {},
	"internal/corpus":       {},
}

// everybodys may be imported by all: generated code, the version's number, and
// how threads wait.
var everybodys = []string{"api/proto", "internal/version", "internal/threads"}

// outside are those that run the product from outside. They may use the tools
// for that, and nothing of the product but what its users have: the client.
var (
	outside = []string{"examples", "bench", "internal/e2e"}
	tools   = []string{"internal/process", "internal/freeport", "internal/envoyadmin", "internal/grpcclients", "client"}
)

// servers are what tests of the client talk to: a real member's part, in their process.
var servers = []string{"registry", "registry/grpcapi", "registry/registrytest"}

// room is the line of the picture that a folder belongs to, "" for none.
func room(folder string) string {
	for at := folder; ; {
		if _, ok := picture[at]; ok {
			return at
		}
		cut := strings.LastIndex(at, "/")
		if cut < 0 {
			return ""
		}
		at = at[:cut]
	}
}

// mayImport tells whether a package of room `from` may import one of `folder`.
func mayImport(from, folder string) bool {
	to := room(folder)
	if to == from || slices.Contains(everybodys, to) {
		return true
	}
	if slices.Contains(tools, to) && slices.Contains(outside, from) {
		return true
	}
	return slices.ContainsFunc(picture[from], func(allowed string) bool {
		// cmd joins all rooms and may open their inner doors; others name the room that they mean.
		return to == allowed || from == "cmd" && strings.HasPrefix(to, allowed+"/")
	})
}

// testMayImport is mayImport for tests. Those of the rooms above storage stand
// on a real one, kept in memory: it is no vocabulary that their code learns. Those of
// the client have a real server.
func testMayImport(from, folder string) bool {
	if from == "client" && slices.Contains(servers, room(folder)) {
		return true
	}
	if from == "access" && room(folder) == "access/authority" {
		return true // what it reads has to be signed by somebody
	}
	if from == "xds" && room(folder) == "internal/grpcclients" {
		return true // real clients of what it serves
	}
	if room(folder) == "internal/rawcalls" {
		return true // whoever serves gRPC is called with whatever bytes
	}
	if room(folder) == "internal/corpus" {
		return true // wherever there are fuzz targets
	}
	if room(folder) == "internal/freeport" {
		return true // whoever has to name a port before it is open
	}
	above := slices.Contains(picture[from], "registry") || slices.Contains(picture[from], "consensus")
	if room(folder) == "registry/registrytest" {
		return slices.Contains(picture[from], "registry")
	}
	return mayImport(from, folder) || above && room(folder) == "storage" || room(folder) == "storage/crashfs" || strings.HasPrefix(from, "storage/") && room(folder) == "storage"
}

// The rooms of the house import each other in the drawn directions only, tests included.
func TestPackagesImportOnlyWhatThePictureAllows(t *testing.T) {
	check := func(p pkg, from string, imports []string, may func(from, folder string) bool) {
		for _, imported := range imports {
			folder, ours := strings.CutPrefix(imported, module+"/")
			if ours && !may(from, folder) {
				t.Errorf("%s imports %s: %s may import %v", p.folder(), folder, from, picture[from])
			}
		}
	}
	for _, p := range packages(t) {
		from := room(p.folder())
		if from == "" {
			t.Errorf("%s is in no room of the picture: draw it in internal/archtest and docs/ARCHITECTURE.md", p.folder())
			continue
		}
		check(p, from, p.Imports, mayImport)
		check(p, from, slices.Concat(p.TestImports, p.XTestImports), testMayImport)
	}
}

// The picture itself leads nowhere in a circle, so no two rooms can come to know each other.
func TestThePictureHasNoCircle(t *testing.T) {
	done := make(map[string]bool)
	var walk func(at string, way []string)
	walk = func(at string, way []string) {
		if slices.Contains(way, at) {
			t.Fatalf("circle: %s", strings.Join(append(way, at), " → "))
		}
		if done[at] {
			return
		}
		for _, next := range picture[at] {
			walk(next, append(way, at))
		}
		done[at] = true
	}
	for at := range picture {
		walk(at, nil)
	}
}

// vocabulary is a foreign library and its home: folders, with /... when all
// below them is meant, too.
type vocabulary struct {
	path  string // the import path; all below it belongs to it
	homes []string
	tests []string // whose tests may use it besides
}

// vocabularies are looked up from the top: the first line that fits an import counts.
var vocabularies = []vocabulary{
	// The file system is the seam that all tests of crashes go through, and cmd chooses it.
	{"github.com/cockroachdb/pebble/v2/vfs", []string{"storage/...", "cmd/...", "consensus/simulate", "registry/registrytest"}, []string{"..."}},
	{"github.com/cockroachdb/pebble", []string{"storage"}, []string{"storage/crashfs"}},
	// peer carries messages as bytes; what it may know of them is their form, not what raft does.
	{"go.etcd.io/raft/v3/raftpb", []string{"consensus/..."}, nil},
	{"go.etcd.io/raft", []string{"consensus", "consensus/simulate"}, nil},
	{"github.com/envoyproxy/go-control-plane", []string{"xds/..."}, []string{"bench/...", "internal/e2e"}},
	{"github.com/cncf/xds", []string{"xds/..."}, nil},
	{"google.golang.org/grpc", []string{"xds/...", "consensus/peer", "registry/grpcapi", "registry/probe", "federation/...", "access", "client", "cmd/stellmapd", "api/proto/...", "internal/grpcclients/...", "internal/rawcalls"}, []string{"bench/...", "internal/e2e"}},
	{"net/http", []string{"registry/httpapi", "registry/probe", "cmd/...", "client", "examples/...", "internal/envoyadmin"}, []string{"bench/...", "internal/e2e"}},
	{"go.opentelemetry.io/otel/sdk", []string{"cmd/stellmapd"}, []string{"xds"}},
	{"go.opentelemetry.io/otel/exporters", []string{"cmd/stellmapd"}, nil},
	{"go.opentelemetry.io", []string{"cmd/stellmapd", "xds", "client"}, nil}, // what makes spans is passed in
	{"github.com/spiffe", []string{"access"}, nil},
	{"github.com/spf13", []string{"cmd/..."}, nil},
	{"github.com/pelletier/go-toml", []string{"cmd/..."}, nil},
	{"flag", []string{"cmd/...", "examples/...", "internal/corpus"}, []string{"..."}},
	{"log/slog", []string{"..."}, nil}, // passed in
	{"log", []string{}, nil},           // global
}

// in tells whether a folder is one of the given.
func in(folder string, homes []string) bool {
	return slices.ContainsFunc(homes, func(h string) bool {
		top, below := strings.CutSuffix(h, "...")
		return folder == strings.TrimSuffix(top, "/") || below && strings.HasPrefix(folder, top)
	})
}

// homeless says where an import should be, or "" when it may be where it is.
func homeless(folder, imported string, test bool) string {
	for _, v := range vocabularies {
		if imported != v.path && !strings.HasPrefix(imported, v.path+"/") {
			continue
		}
		if in(folder, v.homes) || test && in(folder, v.tests) {
			return ""
		}
		return fmt.Sprint(v.homes)
	}
	return ""
}

// Each foreign vocabulary has one home: Pebble in storage, Raft in consensus, Envoy in xds,
// HTTP in httpapi and cmd, flags and their libraries in cmd.
func TestForeignVocabulariesStayAtHome(t *testing.T) {
	for _, p := range packages(t) {
		for _, imported := range p.Imports {
			if home := homeless(p.folder(), imported, false); home != "" {
				t.Errorf("%s imports %s, whose home is %s", p.folder(), imported, home)
			}
		}
		for _, imported := range slices.Concat(p.TestImports, p.XTestImports) {
			if home := homeless(p.folder(), imported, true); home != "" {
				t.Errorf("a test of %s imports %s, whose home is %s", p.folder(), imported, home)
			}
		}
	}
}

// The rules refuse what the design forbids: each case was once allowed by a slip, or could be.
func TestTheRulesRefuse(t *testing.T) {
	for _, c := range []struct {
		from, folder string
		want         bool
	}{
		{"registry", "consensus", false},
		{"consensus", "registry", false},
		{"storage", "registry", false},
		{"xds", "storage", false},
		{"xds", "consensus", false},
		{"xds", "registry/httpapi", false},
		{"xds", "federation", false},
		{"internal/e2e", "registry", false},
		{"registry/httpapi", "registry", true},
		{"cmd", "registry/httpapi", true},
		{"cmd", "consensus/peer", true},
		{"examples", "internal/process", true},
		{"registry", "internal/process", false},
		{"cmd", "internal/freeport", false},
		{"client", "registry", false},
		{"registry", "client", false},
		{"internal/e2e", "client", true},
		{"registry", "api/proto/stellmap/record/v1", true},
	} {
		if got := mayImport(c.from, c.folder); got != c.want {
			t.Errorf("%s may import %s: %v, want %v", c.from, c.folder, got, c.want)
		}
	}
	for _, c := range []struct {
		from, folder string
		want         bool
	}{
		{"xds", "storage", true},
		{"registry/httpapi", "storage", true},
		{"consensus/peer", "storage", true},
		{"xds", "consensus", false},
		{"internal/e2e", "storage", false},
		{"bench", "storage", false},
		{"client", "registry/grpcapi", true},
		{"client", "registry/httpapi", false},
		{"client", "consensus", false},
		{"cmd", "internal/freeport", true},
		{"cmd", "internal/process", false},
	} {
		if got := testMayImport(c.from, c.folder); got != c.want {
			t.Errorf("a test of %s may import %s: %v, want %v", c.from, c.folder, got, c.want)
		}
	}
	for _, c := range []struct {
		folder, imported string
		test, want       bool
	}{
		{"registry", "github.com/cockroachdb/pebble/v2", false, false},
		{"registry", "github.com/cockroachdb/pebble/v2", true, false},
		{"registry", "github.com/cockroachdb/pebble/v2/vfs", false, false},
		{"registry", "github.com/cockroachdb/pebble/v2/vfs", true, true},
		{"consensus/peer", "go.etcd.io/raft/v3", false, false},
		{"consensus/peer", "go.etcd.io/raft/v3/raftpb", false, true},
		{"registry", "net/http", false, false},
		{"registry/httpapi", "net/http", false, true},
		{"registry", "net/http/httptest", true, false},
		{"storage", "github.com/spf13/viper", false, false},
		{"storage", "flag", false, false},
		{"storage", "log/slog", false, true},
		{"storage", "log", false, false},
		{"storage", "logical", false, true},
	} {
		if got := homeless(c.folder, c.imported, c.test) == ""; got != c.want {
			t.Errorf("%s (test: %v) may import %s: %v, want %v", c.folder, c.test, c.imported, got, c.want)
		}
	}
}

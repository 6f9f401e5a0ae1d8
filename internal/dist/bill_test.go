package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
)

// information is that of a binary as `go version -m` shows it.
const information = `path	github.com/stellmap/stellmap/cmd/stellmapd
mod	github.com/stellmap/stellmap	(devel)
dep	github.com/spf13/viper	v1.21.0	h1:abc=
dep	google.golang.org/grpc	v1.84.0	h1:old=
=>	google.golang.org/grpc	v1.85.0	h1:new=
build	-trimpath=true
build	CGO_ENABLED=0
build	vcs.revision=0123456789abcdef
build	vcs.time=2026-03-01T12:00:00Z
build	vcs.modified=false
`

const sum = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

func billOfText(t *testing.T, text string) (*bill, error) {
	t.Helper()
	info, err := debug.ParseBuildInfo(text)
	if err != nil {
		t.Fatal(err)
	}
	info.GoVersion = "go1.26.0"
	return billOf("stellmapd_linux_amd64", sum, "1.2.3", info)
}

// Both bills have each module once, as it was built, and the language's library; and they
// follow from the binary alone.
func TestABillOfMaterials(t *testing.T) {
	b, err := billOfText(t, information)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"pkg:golang/stdlib@1.26.0", "pkg:golang/github.com/spf13/viper@v1.21.0", "pkg:golang/google.golang.org/grpc@v1.85.0"}
	var cyclone struct {
		SerialNumber string
		Metadata     struct {
			Timestamp string
			Component struct {
				Version string
				Hashes  []struct{ Content string }
			}
		}
		Components []struct{ PURL string }
	}
	if err := json.Unmarshal(b.cycloneDX(), &cyclone); err != nil {
		t.Fatal(err)
	}
	var have []string
	for _, c := range cyclone.Components {
		have = append(have, c.PURL)
	}
	if !slices.Equal(have, want) {
		t.Errorf("CycloneDX has %q, want %q", have, want)
	}
	m := cyclone.Metadata
	if m.Component.Version != "1.2.3" || m.Component.Hashes[0].Content != sum || m.Timestamp != "2026-03-01T12:00:00Z" || cyclone.SerialNumber != "urn:uuid:00112233-4455-8677-8899-aabbccddeeff" {
		t.Errorf("CycloneDX says %+v of the binary, and has the number %s", m, cyclone.SerialNumber)
	}
	var spdx struct {
		Packages []struct {
			ExternalRefs []struct{ ReferenceLocator string }
		}
		Relationships []struct{ RelationshipType string }
	}
	if err := json.Unmarshal(b.spdx(), &spdx); err != nil {
		t.Fatal(err)
	}
	have = nil
	for _, p := range spdx.Packages[1:] {
		have = append(have, p.ExternalRefs[0].ReferenceLocator)
	}
	if !slices.Equal(have, want) || len(spdx.Relationships) != 1+len(want) {
		t.Errorf("SPDX has %q and %d relations, want %q", have, len(spdx.Relationships), want)
	}
	again, err := billOfText(t, information)
	if err != nil || !bytes.Equal(again.cycloneDX(), b.cycloneDX()) || !bytes.Equal(again.spdx(), b.spdx()) {
		t.Errorf("the bills of the same binary differ, %v", err)
	}
}

// What nobody else could build has no bill.
func TestNoBill(t *testing.T) {
	for from, to := range map[string]string{
		"vcs.modified=false": "vcs.modified=true", "build	vcs.revision=0123456789abcdef\n": "", "-trimpath=true": "-trimpath=false", "CGO_ENABLED=0": "CGO_ENABLED=1",
	} {
		if _, err := billOfText(t, strings.Replace(information, from, to, 1)); err == nil {
			t.Errorf("with %q in place of %q there is a bill", to, from)
		}
	}
}

// Two builds that differ are no release.
func TestBuildsThatDiffer(t *testing.T) {
	builds := [2]string{t.TempDir(), t.TempDir()}
	for i, content := range []string{"one", "other"} {
		if err := os.WriteFile(filepath.Join(builds[i], "stellmapd"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d := &dist{out: t.TempDir()}
	if err := d.take(builds, "stellmapd"); err == nil || !strings.Contains(err.Error(), "stellmapd: two builds of one commit differ") {
		t.Errorf("it says %v", err)
	}
	if entries, err := os.ReadDir(d.out); err != nil || len(entries) != 0 {
		t.Errorf("there are %v, %v", entries, err)
	}
}

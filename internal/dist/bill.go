package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"time"
)

// A bill is what a binary is made of.
type bill struct {
	name     string
	sum      string // its SHA-256
	version  string
	revision string // of the checkout
	at       time.Time
	tool     string // the version of Go
	modules  []module
}

type module struct {
	path, version string
	sum           string // as go.sum has it
}

// billOf reads the build information of a binary. Of a checkout that differs from its commit
// there is no bill: nobody else could build it.
func billOf(name, sum, version string, info *debug.BuildInfo) (*bill, error) {
	settings := make(map[string]string)
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	at, err := time.Parse(time.RFC3339, settings["vcs.time"])
	switch {
	case settings["vcs.revision"] == "" || err != nil:
		return nil, errors.New("it does not say of which commit it is")
	case settings["vcs.modified"] != "false":
		return nil, errors.New("it is of a checkout with changes of its own")
	case settings["-trimpath"] != "true" || settings["CGO_ENABLED"] != "0":
		return nil, errors.New("it was not built with -trimpath and without cgo")
	}
	b := &bill{name: name, sum: sum, version: version, revision: settings["vcs.revision"], at: at.UTC(), tool: info.GoVersion}
	if b.version == "" {
		b.version = b.revision
	}
	b.modules = append(b.modules, module{path: "stdlib", version: strings.TrimPrefix(info.GoVersion, "go")})
	for _, dep := range info.Deps {
		for dep.Replace != nil {
			dep = dep.Replace
		}
		b.modules = append(b.modules, module{dep.Path, dep.Version, dep.Sum})
	}
	return b, nil
}

func (m module) purl() string { return "pkg:golang/" + m.path + "@" + m.version }

// serial is a UUID that follows from the binary, so that its bill does, too.
func (b *bill) serial() string {
	h := b.sum
	return fmt.Sprintf("%s-%s-8%s-8%s-%s", h[:8], h[8:12], h[13:16], h[17:20], h[20:32])
}

// object is a JSON object. Its keys come out in the order of the alphabet.
type object = map[string]any

// cycloneDX is the bill in the form of CycloneDX 1.6.
func (b *bill) cycloneDX() []byte {
	components, needed := []object{}, []string{}
	for _, m := range b.modules {
		c := object{"type": "library", "bom-ref": m.purl(), "name": m.path, "version": m.version, "purl": m.purl()}
		if m.sum != "" {
			c["properties"] = []object{{"name": "go:sum", "value": m.sum}}
		}
		components, needed = append(components, c), append(needed, m.purl())
	}
	return pretty(object{
		"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "serialNumber": "urn:uuid:" + b.serial(),
		"metadata": object{
			"timestamp": b.at.Format(time.RFC3339),
			"component": object{
				"type": "application", "bom-ref": b.name, "name": b.name, "version": b.version,
				"hashes":     []object{{"alg": "SHA-256", "content": b.sum}},
				"licenses":   []object{{"license": object{"id": "Apache-2.0"}}},
				"properties": []object{{"name": "vcs:revision", "value": b.revision}, {"name": "go:version", "value": b.tool}},
			},
		},
		"components":   components,
		"dependencies": []object{{"ref": b.name, "dependsOn": needed}},
	})
}

// spdx is the bill in the form of SPDX 2.3.
func (b *bill) spdx() []byte {
	const unknown, root = "NOASSERTION", "SPDXRef-binary"
	packages := []object{{
		"SPDXID": root, "name": b.name, "versionInfo": b.version, "downloadLocation": unknown, "filesAnalyzed": false, "licenseConcluded": unknown,
		"licenseDeclared": "Apache-2.0", "copyrightText": unknown, "primaryPackagePurpose": "APPLICATION",
		"checksums": []object{{"algorithm": "SHA256", "checksumValue": b.sum}}, "sourceInfo": "commit " + b.revision + ", " + b.tool,
	}}
	relations := []object{{"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": root}}
	for i, m := range b.modules {
		id := fmt.Sprintf("SPDXRef-module-%d", i)
		p := object{
			"SPDXID": id, "name": m.path, "versionInfo": m.version, "downloadLocation": unknown, "filesAnalyzed": false, "licenseConcluded": unknown,
			"licenseDeclared": unknown, "copyrightText": unknown,
			"externalRefs": []object{{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": m.purl()}},
		}
		if m.sum != "" {
			p["comment"] = "go.sum " + m.sum
		}
		packages = append(packages, p)
		relations = append(relations, object{"spdxElementId": root, "relationshipType": "DEPENDS_ON", "relatedSpdxElement": id})
	}
	return pretty(object{
		"spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": b.name,
		"documentNamespace": "https://github.com/stellmap/stellmap/spdx/" + b.name + "-" + b.serial(),
		"creationInfo":      object{"created": b.at.Format(time.RFC3339), "creators": []string{"Tool: stellmap-dist"}},
		"packages":          packages, "relationships": relations,
	})
}

func pretty(v any) []byte {
	out, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		panic(fmt.Sprintf("dist: encode a bill: %v", err)) // texts and numbers only
	}
	return append(out, '\n')
}

package httpapi

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"slices"
	"strings"
)

// The page for people who read the API. It is whole: it loads nothing, neither from
// this member nor from anywhere else.

//go:embed docs.html
var docsPage string

var docsTemplate = template.Must(template.New("docs").Funcs(template.FuncMap{
	"name": func(ref string) string { return ref[strings.LastIndexByte(ref, '/')+1:] },
	"kind": func(s *schema) string { return strings.Join(slices.DeleteFunc(slices.Clone(s.Type), isNull), " or ") },
}).Parse(docsPage))

func isNull(kind string) bool { return kind == "null" }

// A docsGroup is calls that belong together.
type docsGroup struct {
	Tag   string
	Calls []docsCall
}

type docsCall struct {
	Method, Path string
	*apiCall
}

// html is the page.
func (d *openAPI) html() []byte {
	var out bytes.Buffer
	err := docsTemplate.Execute(&out, struct {
		*openAPI
		Groups []docsGroup
	}{d, d.groups()})
	if err != nil {
		panic(fmt.Sprintf("httpapi: write the page of the API: %v", err)) // it writes to memory what the tests have seen it write
	}
	return out.Bytes()
}

// groups are all calls by their tags.
func (d *openAPI) groups() []docsGroup {
	byTag := make(map[string][]docsCall)
	for _, path := range sorted(d.Paths) {
		for _, method := range sorted(d.Paths[path]) {
			c := d.Paths[path][method]
			byTag[c.Tags[0]] = append(byTag[c.Tags[0]], docsCall{strings.ToUpper(method), path, c})
		}
	}
	var out []docsGroup
	for _, tag := range sorted(byTag) {
		out = append(out, docsGroup{tag, byTag[tag]})
	}
	return out
}

package registry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// A FieldChange is one field of a document that two versions differ in.
type FieldChange struct {
	Field  string          `json:"field"`            // its JSON path
	Before json.RawMessage `json:"before,omitempty"` // absent = it was not given
	After  json.RawMessage `json:"after,omitempty"`
}

// differences are the fields that two contents of a document differ in, sorted;
// nil is an empty content.
func differences[D any](before, after *D) []FieldChange {
	old, now := fieldsOf(before), fieldsOf(after)
	all := maps.Clone(old)
	maps.Copy(all, now)
	var out []FieldChange
	for _, field := range slices.Sorted(maps.Keys(all)) {
		if !bytes.Equal(old[field], now[field]) {
			out = append(out, FieldChange{Field: field, Before: old[field], After: now[field]})
		}
	}
	return out
}

// fieldsOf are the fields of a content by their JSON paths.
func fieldsOf[D any](content *D) map[string]json.RawMessage {
	out := make(map[string]json.RawMessage)
	if content == nil {
		return out
	}
	whole, err := json.Marshal(content)
	if err != nil {
		panic(fmt.Sprintf("registry: encode %T: %v", content, err)) // texts, numbers and truth values only
	}
	addFields(out, "", whole)
	return out
}

func addFields(to map[string]json.RawMessage, at string, value json.RawMessage) {
	var inside map[string]json.RawMessage
	if value[0] != '{' || json.Unmarshal(value, &inside) != nil {
		to[at] = value
		return
	}
	for name, one := range inside {
		if at != "" {
			name = at + "." + name
		}
		addFields(to, name, one)
	}
}

package httpapi

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/stellmap/stellmap/registry"
)

// A schema is what JSON Schema says of a value, as far as this API needs it.
type schema struct {
	Ref                  string             `json:"$ref,omitempty"`
	Type                 kinds              `json:"type,omitempty"`
	Description          string             `json:"description,omitempty"`
	Format               string             `json:"format,omitempty"`
	Enum                 []string           `json:"enum,omitempty"`
	Pattern              string             `json:"pattern,omitempty"`
	MaxLength            int                `json:"maxLength,omitempty"`
	Minimum              *int64             `json:"minimum,omitempty"`
	Maximum              *int64             `json:"maximum,omitempty"`
	Items                *schema            `json:"items,omitempty"`
	Properties           map[string]*schema `json:"properties,omitempty"`
	Required             []string           `json:"required,omitempty"`
	AdditionalProperties any                `json:"additionalProperties,omitempty"` // false, or the schema of what may have any name
}

// kinds are the types that a value may have; in JSON a single one stands for itself.
type kinds []string

func (k kinds) MarshalJSON() ([]byte, error) {
	if len(k) == 1 {
		return json.Marshal(k[0])
	}
	return json.Marshal([]string(k))
}

// schemas are those of the types that bodies are made of: an object's by its name, so
// that it stands in the description once.
//
// What is read is described as strictly as it is read: a key that is not there is
// refused, and null is as good as absent. What is written may get more keys one day,
// and has those that its type does not leave out when they are empty.
type schemas struct {
	named map[string]*schema
	of    map[string]reflect.Type
	reads bool // what is described now is read
}

func newSchemas() *schemas {
	return &schemas{named: make(map[string]*schema), of: make(map[string]reflect.Type)}
}

// A describer stands for something that is written by hand.
type describer interface{ describe(*schemas) *schema }

// schema describes a type.
func (s *schemas) schema(t reflect.Type) *schema {
	if d, ok := reflect.Zero(t).Interface().(describer); ok {
		return d.describe(s)
	}
	switch t.Kind() {
	case reflect.Pointer:
		return s.schema(t.Elem())
	case reflect.Struct:
		return s.object(t)
	case reflect.Map:
		return &schema{Type: s.orNull("object"), AdditionalProperties: s.schema(t.Elem())}
	case reflect.Slice:
		if t == reflect.TypeFor[json.RawMessage]() {
			return &schema{} // anything
		}
		return &schema{Type: s.orNull("array"), Items: s.schema(t.Elem())}
	case reflect.Interface:
		return &schema{}
	case reflect.String:
		return &schema{Type: s.orNull("string")}
	case reflect.Bool:
		return &schema{Type: s.orNull("boolean")}
	case reflect.Float64:
		return &schema{Type: s.orNull("number")}
	}
	return &schema{Type: s.orNull("integer"), Format: fmt.Sprintf("int%d", t.Bits())}
}

func (s *schemas) orNull(kind string) []string {
	if s.reads {
		return []string{kind, "null"}
	}
	return []string{kind}
}

// object describes a struct.
func (s *schemas) object(t reflect.Type) *schema {
	name := componentName(t)
	if s.of[name] == nil {
		s.of[name] = t
		s.named[name] = s.fields(t)
	}
	if s.of[name] != t {
		panic(fmt.Sprintf("httpapi: %v and %v have the same name in the description of the API: %s", s.of[name], t, name))
	}
	return refTo(name)
}

// handWritten is an object that no type has all fields of.
func (s *schemas) handWritten(name string, describe func() *schema) *schema {
	if s.named[name] == nil {
		s.named[name] = describe()
	}
	return refTo(name)
}

func refTo(name string) *schema { return &schema{Ref: "#/components/schemas/" + name} }

// componentName is RegisterBody for v2RegisterBody, and Condition for shownCondition.
func componentName(t reflect.Type) string {
	name := strings.TrimPrefix(strings.TrimPrefix(t.Name(), "v2"), "shown")
	return strings.ToUpper(name[:1]) + name[1:]
}

func (s *schemas) fields(t reflect.Type) *schema {
	out := &schema{Type: []string{"object"}, Properties: make(map[string]*schema)}
	if s.reads {
		out.AdditionalProperties = false
	}
	for _, f := range fieldsOf(t) {
		name, _, mayLack := strings.Cut(f.Tag.Get("json"), ",")
		out.Properties[name] = s.field(name, f.Type)
		if !mayLack && !s.reads {
			out.Required = append(out.Required, name)
		}
	}
	slices.Sort(out.Required)
	return out
}

// field is the schema of a type, with what the field's name says.
func (s *schemas) field(name string, t reflect.Type) *schema {
	out := s.schema(t)
	text := slices.Contains(out.Type, "string")
	switch word, known := fieldWords[name]; {
	case out.Ref != "":
		return out
	case known:
		out.Description = word
	case text && slices.Contains(fieldTimes, name):
		out.Format = "date-time"
	}
	if most, bound := fieldsMost[name]; bound && slices.Contains(out.Type, "integer") {
		out.Minimum, out.Maximum = new(int64), &most
	}
	return out
}

// fieldWords are what names mean, wherever they stand.
var fieldWords = map[string]string{
	"namespace":       "letters, digits, '-' and '_'",
	"service":         "letters, digits, '.', '-' and '_': any name, or five levels with dots between them",
	"instanceId":      "printable characters without '/'",
	"revision":        "at which it is so, the same on every member",
	"port":            "from 1 on",
	"leaseTtlSeconds": "0 or absent is the default, and for a renewal what it was",
	"leaseToken":      "shows whose an instance or a lease is",
	"weight":          "0 or absent is 100",
	"nextCursor":      "leads to the next page",
	"resume":          "is what to go on from",
	"counter":         "grows with every change of the instance",
	"withheld":        "what proxies are not told, and why",
}

// fieldsMost are the most that numbers may be.
var fieldsMost = map[string]int64{
	"leaseTtlSeconds": int64(registry.LeaseTTLMax.Seconds()),
	"port":            1<<16 - 1,
	"weight":          1<<16 - 1,
}

var fieldTimes = []string{
	"ackedAt", "at", "changedAt", "connectedAt", "createdAt", "endedAt", "endsAtTheLatest", "expiredAt", "heldUntil", "last",
	"lastHeartbeatAt", "registeredAt", "since", "statusSince", "until",
}

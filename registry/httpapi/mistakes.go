package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"

	"github.com/stellmap/stellmap/registry"
)

// mistakesMax bounds what one answer lists.
const mistakesMax = 32

// mistakes gathers the unknown fields and the wrong types of a JSON document.
type mistakes []registry.Problem

// findMistakes compares a document with the type that it should have decoded
// into. The document is syntactically right. nil when it finds nothing.
func findMistakes(document []byte, want reflect.Type) error {
	var found mistakes
	found.look(document, want, "")
	if len(found) == 0 {
		return nil
	}
	return &registry.ValidationError{Problems: found}
}

func (m *mistakes) add(at, reason string) {
	if len(*m) < mistakesMax {
		*m = append(*m, registry.Problem{Field: at, Reason: reason})
	}
}

// look compares one value. Nothing is asked of null, which is as good as absent.
func (m *mistakes) look(value []byte, want reflect.Type, at string) {
	value = bytes.TrimLeft(value, jsonSpace)
	if want.Kind() == reflect.Pointer { // what may be left out
		want = want.Elem()
	}
	switch {
	case value[0] == 'n':
	case want.Kind() == reflect.Pointer:
		m.look(value, want.Elem(), at)
	case want.Kind() == reflect.Struct && value[0] == '{':
		m.lookInside(value, at, fieldsOf(want))
	case want.Kind() == reflect.Map && value[0] == '{':
		m.eachKey(value, func(key string, one []byte) { m.look(one, want.Elem(), fmt.Sprintf("%s[%q]", at, clip(key))) })
	case want.Kind() == reflect.Slice && value[0] == '[':
		for i, one := range elementsOf(value) {
			m.look(one, want.Elem(), fmt.Sprintf("%s[%d]", at, i))
		}
	default:
		m.lookAtScalar(value, want, at)
	}
}

func (m *mistakes) lookAtScalar(value []byte, want reflect.Type, at string) {
	var wrong *json.UnmarshalTypeError
	if err := json.Unmarshal(value, reflect.New(want).Interface()); errors.As(err, &wrong) {
		m.add(at, fmt.Sprintf("is %s: %s", kindOf(value), wanted(want)))
	} else if err != nil {
		m.add(at, err.Error())
	}
}

func (m *mistakes) lookInside(object []byte, at string, fields []reflect.StructField) {
	m.eachKey(object, func(key string, value []byte) {
		where := clip(key)
		if at != "" {
			where = at + "." + where
		}
		for _, f := range fields {
			if strings.EqualFold(nameOf(f), key) { // as encoding/json does
				m.look(value, f.Type, where)
				return
			}
		}
		m.add(where, "is not known: the fields here are "+namesOf(fields))
	})
}

// eachKey walks an object in the order in which it was written.
func (m *mistakes) eachKey(object []byte, fn func(key string, value []byte)) {
	d := json.NewDecoder(bytes.NewReader(object))
	if _, err := d.Token(); err != nil {
		return
	}
	for d.More() && len(*m) < mistakesMax {
		key, err := d.Token()
		if err != nil {
			return
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return
		}
		fn(key.(string), value)
	}
}

func elementsOf(array []byte) []json.RawMessage {
	var elements []json.RawMessage
	if err := json.Unmarshal(array, &elements); err != nil {
		return nil
	}
	return elements
}

// fieldsOf are the fields that JSON sees, those of embedded structs included.
func fieldsOf(t reflect.Type) []reflect.StructField {
	var fields []reflect.StructField
	for _, f := range reflect.VisibleFields(t) {
		if !f.Anonymous {
			fields = append(fields, f)
		}
	}
	return fields
}

func nameOf(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

func namesOf(fields []reflect.StructField) string {
	var names []string
	for _, f := range fields {
		names = append(names, nameOf(f))
	}
	return strings.Join(names, ", ")
}

// kindOf names what a value is.
func kindOf(value []byte) string {
	switch value[0] {
	case '"':
		return "a text"
	case '{':
		return "an object"
	case '[':
		return "an array"
	case 't', 'f':
		return "a truth value"
	}
	return "the number " + clip(string(bytes.TrimRight(value, jsonSpace)))
}

// wanted says what a value should have been.
func wanted(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a text"
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.Slice:
		return "an array"
	case reflect.Bool:
		return "true or false"
	case reflect.Float64:
		return "a number"
	}
	return fmt.Sprintf("a whole number of at most %d, without point or exponent", int64(math.MaxInt64)>>(64-t.Bits()))
}

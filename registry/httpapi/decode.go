package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"
	"sync"
	"unicode/utf8"
)

// decode reads a JSON object into the fields of v, a pointer to a struct.
//
// A good body is read in one pass by encoding/json, which is strict enough to
// refuse and too terse to explain: it names an unknown field without its place
// and the first wrong one only. So a body that it refuses is looked through once
// more by findMistakes, for the sake of the answer.
func decode(w http.ResponseWriter, q *http.Request, v any) error {
	return withBody(w, q, bodyBytesMax, func(body []byte) error { return decodeBytes(body, v) })
}

// withBody hands a JSON body of at most so many bytes on, for as long as fn runs.
func withBody(w http.ResponseWriter, q *http.Request, most int64, fn func(body []byte) error) error {
	if !isJSON(q.Header.Get("Content-Type")) {
		return errMediaType
	}
	buffer := bodyFor(q)
	defer putBody(buffer)
	if err := readBody(w, q, most, buffer); err != nil {
		return err
	}
	return fn(buffer.Bytes())
}

// decodeOptional is decode for a call that can do without a body: nothing changes nothing in v.
func decodeOptional(w http.ResponseWriter, q *http.Request, v any) error {
	mediaType := q.Header.Get("Content-Type")
	if q.ContentLength == 0 && (mediaType == "" || isJSON(mediaType)) {
		return nil
	}
	return decode(w, q, v)
}

// isJSON holds for application/json with any parameters. A form, which a browser
// sends anywhere without asking, must not register anything.
func isJSON(contentType string) bool {
	if contentType == typeJSON {
		return true
	}
	mediaType, _, err := mime.ParseMediaType(contentType)
	return mediaType == typeJSON && (err == nil || errors.Is(err, mime.ErrInvalidMediaParameter))
}

// Buffers for reuse: what is decoded keeps nothing of them. Those of what is large, or of
// unknown length, are apart, so that small bodies do not keep them in use.
var bodies, largeBodies = bodyPool(), bodyPool()

func bodyPool() *sync.Pool { return &sync.Pool{New: func() any { return new(bytes.Buffer) }} }

// What buffers may hold that are kept.
const (
	bodyKeptMax      = 64 << 10
	largeBodyKeptMax = 2 * bodyBytesMax
)

func bodyFor(q *http.Request) *bytes.Buffer {
	if q.ContentLength < 0 || q.ContentLength > bodySmallMax {
		return largeBodies.Get().(*bytes.Buffer)
	}
	return bodies.Get().(*bytes.Buffer)
}

func putBody(b *bytes.Buffer) {
	b.Reset()
	switch {
	case b.Cap() <= bodyKeptMax:
		bodies.Put(b)
	case b.Cap() <= largeBodyKeptMax:
		largeBodies.Put(b)
	}
}

func readBody(w http.ResponseWriter, q *http.Request, most int64, into *bytes.Buffer) error {
	if q.ContentLength > most { // nothing of it needs to be read
		return bodyTooLarge(most)
	}
	if q.ContentLength > bodySmallMax {
		into.Grow(int(q.ContentLength) + bytes.MinRead) // once: doubling would leave as much behind
	}
	_, err := into.ReadFrom(http.MaxBytesReader(w, q.Body, most))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return bodyTooLarge(most)
	case err != nil:
		return invalid("body", "could not be read to its end: "+err.Error())
	}
	return nil
}

func bodyTooLarge(most int64) error { return fmt.Errorf("%w than %d bytes", errBodyTooLarge, most) }

func decodeBytes(body []byte, v any) error {
	space := len(body) - len(bytes.TrimLeft(body, jsonSpace))
	switch {
	case space == len(body):
		return invalid("body", "is empty: a JSON object")
	case !utf8.Valid(body):
		return invalid("body", "is not valid UTF-8")
	case body[space] != '{':
		return invalid("body", fmt.Sprintf("begins with %q: a JSON object", clip(string(body[space:min(len(body), space+8)]))))
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return explain(err, body, v)
	}
	end := d.InputOffset()
	if rest := bytes.TrimLeft(body[end:], jsonSpace); len(rest) > 0 {
		return invalid("body", fmt.Sprintf("goes on after the JSON object, at byte %d: one object and nothing else", len(body)-len(rest)+1))
	}
	return nil
}

// jsonSpace is what JSON takes for blank.
const jsonSpace = " \t\r\n"

// explain says what is wrong with a body that could not be decoded.
func explain(err error, body []byte, v any) error {
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &syntax):
		return invalid("body", fmt.Sprintf("is not JSON: %v, at byte %d", syntax, syntax.Offset))
	case errors.Is(err, io.ErrUnexpectedEOF):
		return invalid("body", "is not JSON: it ends too early")
	}
	if found := findMistakes(body, reflect.TypeOf(v).Elem()); found != nil {
		return found
	}
	return invalid("body", err.Error())
}

package httpapi

import (
	"net/http"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/stellmap/stellmap/registry"
)

// Lists of instances are the largest answers and the most frequent ones, so they
// are written by hand: field by field into one buffer that is sent whenever it is
// full, without a copy of the list in between. Package encoding/json would want a
// map for each of an instance's labels. TestEncodeAgreesWithJSON holds the two together.

// chunkBytes is how much is gathered before it is sent.
const chunkBytes = 64 << 10

// An encoder writes JSON into a buffer. It puts the commas.
type encoder struct{ b []byte }

var encoders = sync.Pool{New: func() any { return &encoder{b: make([]byte, 0, 4<<10)} }}

// comma goes before everything that does not come first.
func (e *encoder) comma() {
	if n := len(e.b); n > 0 {
		switch e.b[n-1] {
		case '{', '[', ':':
		default:
			e.b = append(e.b, ',')
		}
	}
}

func (e *encoder) open(bracket byte) {
	e.comma()
	e.b = append(e.b, bracket)
}

func (e *encoder) close(bracket byte) { e.b = append(e.b, bracket) }

// value is for what is small beside the list that it is in.
func (e *encoder) value(v any) {
	e.comma()
	e.b = append(e.b, marshal(v)...)
}

// key is for names that need no escaping.
func (e *encoder) key(name string) {
	e.comma()
	e.b = append(e.b, '"')
	e.b = append(e.b, name...)
	e.b = append(e.b, '"', ':')
}

func (e *encoder) text(name, value string) {
	e.key(name)
	e.b = appendText(e.b, value)
}

// optional is text that is left out when it is empty.
func (e *encoder) optional(name, value string) {
	if value != "" {
		e.text(name, value)
	}
}

func (e *encoder) number(name string, value int64) {
	e.key(name)
	e.b = strconv.AppendInt(e.b, value, 10)
}

// flag is what is true, or left out.
func (e *encoder) flag(name string) {
	e.key(name)
	e.b = append(e.b, "true"...)
}

func (e *encoder) truth(name string, value bool) {
	e.key(name)
	e.b = strconv.AppendBool(e.b, value)
}

func (e *encoder) time(name string, unixMs int64) {
	e.key(name)
	e.b = append(e.b, '"')
	e.b = time.UnixMilli(unixMs).UTC().AppendFormat(e.b, timeForm)
	e.b = append(e.b, '"')
}

// pairs are left out when there are none.
func (e *encoder) pairs(name string, pairs registry.Pairs) {
	if len(pairs) == 0 {
		return
	}
	e.key(name)
	e.open('{')
	for _, p := range pairs {
		e.comma()
		e.b = append(appendText(e.b, p.Key), ':')
		e.b = appendText(e.b, p.Value)
	}
	e.close('}')
}

func (e *encoder) levels(l registry.Levels) {
	e.optional("organization", l.Organization)
	e.optional("businessDomain", l.BusinessDomain)
	e.optional("capabilityDomain", l.CapabilityDomain)
	e.optional("application", l.Application)
	e.optional("role", l.Role)
}

func (e *encoder) endpoints(endpoints []registry.Endpoint) {
	e.key("endpoints")
	e.open('[')
	for i := range endpoints {
		one := &endpoints[i]
		e.open('{')
		e.text("name", one.Name)
		e.text("protocol", one.Protocol)
		e.text("host", one.Host)
		e.number("port", int64(one.Port))
		e.optional("path", one.Path)
		e.number("weight", int64(one.Weight))
		e.close('}')
	}
	e.close(']')
}

func leaseSeconds(i *registry.Instance) int64 { return int64(i.LeaseTTL / time.Second) }

// appendText appends a JSON string. Like encoding/json it escapes what HTML and
// JavaScript would take amiss.
func appendText(b []byte, s string) []byte {
	b = append(b, '"')
	from := 0
	for i := 0; i < len(s); {
		if c := s[i]; c < utf8.RuneSelf {
			if isPlain(c) {
				i++
				continue
			}
			b = appendEscaped(append(b, s[from:i]...), c)
			i++
			from = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 || r == '\u2028' || r == '\u2029' {
			b = append(append(b, s[from:i]...), `\u`...)
			b = append(b, hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
			from = i + size
		}
		i += size
	}
	return append(append(b, s[from:]...), '"')
}

func isPlain(c byte) bool {
	return c >= ' ' && c != '"' && c != '\\' && c != '<' && c != '>' && c != '&'
}

const hexDigits = "0123456789abcdef"

func appendEscaped(b []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(b, '\\', c)
	case '\b':
		return append(b, '\\', 'b')
	case '\f':
		return append(b, '\\', 'f')
	case '\n':
		return append(b, '\\', 'n')
	case '\r':
		return append(b, '\\', 'r')
	case '\t':
		return append(b, '\\', 't')
	}
	return append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
}

// writeList answers with a list: what comes before it, its items, and what comes
// after. An answer that fits into one chunk goes out with its length.
func writeList[T any](w http.ResponseWriter, before, after string, items []T, one func(*encoder, T)) {
	e := encoders.Get().(*encoder)
	defer encoders.Put(e)
	e.b = append(e.b[:0], before...)
	sent := false
	for _, item := range items {
		one(e, item)
		if len(e.b) < chunkBytes {
			continue
		}
		if !sent {
			w.Header().Set("Content-Type", typeJSON)
			sent = true
		}
		last := len(e.b) - 1 // stays, for the next comma to be put behind
		if _, err := w.Write(e.b[:last]); err != nil {
			return // the client has gone
		}
		e.b = append(e.b[:0], e.b[last])
	}
	e.b = append(e.b, after...)
	if sent {
		w.Write(e.b) // as in writeBytes
		return
	}
	writeBytes(w, http.StatusOK, typeJSON, e.b)
}

package httpapi

import (
	"strconv"
	"strings"

	"github.com/stellmap/stellmap/registry"
)

// plainRenewals reads a batch of nothing but renewals, as programs write them. Such
// batches come by the thousand a second, and encoding/json takes most of the time
// of each. So this reads what is plain, with the same meaning, and is false for
// everything else: other items, other fields, escapes, texts beyond ASCII, and all
// that is wrong. That is read by encoding/json, which also knows what to say of it.
// The texts are parts of the body: nothing is allocated for an item.
func plainRenewals(body string) (items []v2BatchItem, ok bool) {
	s := plainScan{rest: body}
	many := strings.Count(body, `"renew"`)
	if many == 0 || many > registry.BatchItemsMax || !s.take('{') || s.name() != "items" || !s.take('[') {
		return nil, false
	}
	items = make([]v2BatchItem, 0, many)
	renewals := make([]v2BatchRenew, many) // an id may be "renew" as well: more than there are items then
	for n := range renewals {
		if n > 0 && !s.take(',') {
			break
		}
		if !s.take('{') || s.name() != "renew" || !s.renewal(&renewals[n]) || !s.take('}') {
			return nil, false
		}
		items = append(items, v2BatchItem{Renew: &renewals[n]})
	}
	return items, s.take(']') && s.take('}') && s.ended()
}

// renewal reads the object of one renewal.
func (s *plainScan) renewal(into *v2BatchRenew) bool {
	if !s.take('{') {
		return false
	}
	for {
		good := true
		switch s.name() {
		case "namespace":
			into.Namespace, good = s.text()
		case "service":
			into.Service, good = s.text()
		case "instanceId":
			into.InstanceID, good = s.text()
		case "leaseToken":
			into.LeaseToken, good = s.text()
		case "leaseTtlSeconds":
			into.LeaseTTLSeconds, good = s.number()
		default:
			return false
		}
		if !good || !s.take(',') {
			return good && s.take('}')
		}
	}
}

// A plainScan goes through JSON from token to token, with blanks between them.
type plainScan struct{ rest string }

func (s *plainScan) blanks() {
	for len(s.rest) > 0 && strings.IndexByte(jsonSpace, s.rest[0]) >= 0 {
		s.rest = s.rest[1:]
	}
}

// take goes past a character, if that is what comes.
func (s *plainScan) take(c byte) bool {
	s.blanks()
	if len(s.rest) == 0 || s.rest[0] != c {
		return false
	}
	s.rest = s.rest[1:]
	return true
}

func (s *plainScan) ended() bool {
	s.blanks()
	return s.rest == ""
}

// name is the key that comes, with its colon; "" when none does.
func (s *plainScan) name() string {
	name, ok := s.text()
	if !ok || !s.take(':') {
		return ""
	}
	return name
}

// text reads a string that means what is written.
func (s *plainScan) text() (string, bool) {
	if !s.take('"') {
		return "", false
	}
	for i := range len(s.rest) {
		switch c := s.rest[i]; {
		case c == '"':
			text := s.rest[:i]
			s.rest = s.rest[i+1:]
			return text, true
		case c < ' ' || c > '~' || c == '\\':
			return "", false
		}
	}
	return "", false
}

// number reads a whole number without a sign.
func (s *plainScan) number() (int64, bool) {
	s.blanks()
	digits := 0
	for digits < len(s.rest) && s.rest[digits] >= '0' && s.rest[digits] <= '9' {
		digits++
	}
	text := s.rest[:digits]
	s.rest = s.rest[digits:]
	if len(text) > 1 && text[0] == '0' {
		return 0, false
	}
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil
}

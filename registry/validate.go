package registry

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The rules of names, each with the words that an error uses for it.
const (
	namespaceRule = "letters, digits, '-' and '_', beginning and ending with a letter or digit, at most 253 bytes"
	nameRule      = "letters, digits, '.', '-' and '_', beginning and ending with a letter or digit, at most 253 bytes"
	levelRule     = "letters, digits, '-' and '_', at most 253 bytes with all five joined"
	idRule        = "printable characters without '/', at most 253 bytes"
	textRule      = "printable characters without '/' and '*', at most 253 bytes"
)

func normalizeNamespace(text string, bad *problems) string {
	name := strings.TrimSpace(text)
	switch {
	case name == "":
		bad.add("namespace", "is missing: "+namespaceRule)
	case strings.Contains(name, "."):
		bad.add("namespace", fmt.Sprintf("%s has a dot, which separates the service from the namespace in a host name: %s", quoted(name), namespaceRule))
	case !isName(name, "-_"):
		bad.add("namespace", fmt.Sprintf("%s is not allowed: %s", quoted(name), namespaceRule))
	case strings.EqualFold(name, namespaceReserved): // host names are in lower case
		bad.add("namespace", quoted(name)+" is reserved, since host names of the mesh end in it: choose another name")
	}
	return name
}

// normalizeService settles the two forms of a service name, plain and in five levels.
func normalizeService(text string, given Levels, bad *problems) (string, Levels) {
	service := strings.TrimSpace(text)
	levels := trimLevels(given)
	if levels.IsZero() {
		if service == "" {
			bad.add("service", "is missing: "+nameRule+", or all five levels")
		} else if !isName(service, ".-_") {
			bad.add("service", fmt.Sprintf("%s is not allowed: %s", quoted(service), nameRule))
		}
		return service, LevelsOf(service)
	}
	if !checkLevels(levels, bad) {
		return service, levels
	}
	joined := levels.String()
	switch {
	case service != "" && service != joined:
		bad.add("service", fmt.Sprintf("%s contradicts the five levels, which make %s: leave one of the two out", quoted(service), quoted(joined)))
	case !isName(joined, ".-_"):
		bad.add("service", fmt.Sprintf("%s, made of the five levels, is not allowed: %s", quoted(joined), nameRule))
	}
	return joined, levels
}

func trimLevels(l Levels) Levels {
	return Levels{
		Organization:     strings.TrimSpace(l.Organization),
		BusinessDomain:   strings.TrimSpace(l.BusinessDomain),
		CapabilityDomain: strings.TrimSpace(l.CapabilityDomain),
		Application:      strings.TrimSpace(l.Application),
		Role:             strings.TrimSpace(l.Role),
	}
}

func checkLevels(l Levels, bad *problems) bool {
	before := len(*bad)
	for i, part := range l.parts() {
		switch {
		case part == "":
			bad.add(levelNames[i], "is missing: give all five levels ("+strings.Join(levelNames[:], ", ")+") or none")
		case !consistsOf(part, "-_"):
			bad.add(levelNames[i], fmt.Sprintf("%s is not allowed: %s", quoted(part), levelRule))
		}
	}
	return len(*bad) == before
}

func normalizeID(text string, bad *problems) string {
	id := strings.TrimSpace(text)
	switch {
	case id == "":
		bad.add("instanceId", "is missing: "+idRule)
	case !isID(id):
		bad.add("instanceId", fmt.Sprintf("%s is not allowed: %s", quoted(id), idRule))
	}
	return id
}

func optionalName(text, field string, bad *problems) string {
	name := strings.TrimSpace(text)
	if name != "" && !isText(name) {
		bad.add(field, fmt.Sprintf("%s is not allowed: %s", quoted(name), textRule))
	}
	return name
}

// normalizeTTL leaves 0 alone: it means the default or, in a renewal, "keep".
func normalizeTTL(seconds int64, bad *problems) int64 {
	switch {
	case seconds < 0:
		bad.add("leaseTtlSeconds", fmt.Sprintf("%d is negative: 1 to %d, or 0 for the default", seconds, leaseTTLSecondsMax))
	case seconds > leaseTTLSecondsMax:
		bad.add("leaseTtlSeconds", fmt.Sprintf("%d is more than seven days: 1 to %d, or 0 for the default", seconds, leaseTTLSecondsMax))
	}
	return seconds
}

func normalizePairs(given map[string]string, field string, bad *problems) map[string]string {
	if len(given) == 0 {
		return nil
	}
	out := make(map[string]string, len(given))
	size := 0
	for _, pair := range PairsOf(given) { // sorted, so that errors come in one order
		key, value := strings.TrimSpace(pair.Key), strings.TrimSpace(pair.Value)
		if key == "" {
			continue
		}
		checkPair(key, value, field, bad)
		if _, twice := out[key]; twice {
			bad.add(fmt.Sprintf("%s[%s]", field, quoted(key)), "is given twice: keys must differ by more than the spaces around them")
		}
		out[key] = value
		size += len(key) + len(value)
	}
	if len(out) > pairsMax {
		bad.add(field, fmt.Sprintf("has %d keys: at most %d", len(out), pairsMax))
	}
	if size > pairsBytesMax {
		bad.add(field, fmt.Sprintf("has %d bytes of keys and values: at most %d", size, pairsBytesMax))
	}
	return out
}

func checkPair(key, value, field string, bad *problems) {
	where := fmt.Sprintf("%s[%s]", field, quoted(key))
	if len(key) > nameBytesMax || !isPrintable(key) {
		bad.add(where, fmt.Sprintf("the key is not allowed: printable characters, at most %d bytes", nameBytesMax))
	}
	if !utf8.ValidString(value) {
		bad.add(where, "the value is not valid UTF-8")
	}
}

func normalizeEndpoints(given []Endpoint, bad *problems) []Endpoint {
	if len(given) == 0 {
		bad.add("endpoints", fmt.Sprintf("is empty: 1 to %d endpoints", endpointsMax))
	}
	if len(given) > endpointsMax {
		bad.add("endpoints", fmt.Sprintf("has %d endpoints: at most %d", len(given), endpointsMax))
		return nil
	}
	out := make([]Endpoint, 0, len(given))
	for i, e := range given {
		e = normalizeEndpoint(e, fmt.Sprintf("endpoints[%d].", i), bad)
		twin := slices.IndexFunc(out, func(o Endpoint) bool { return o.Name == e.Name && e.Name != "" })
		if twin >= 0 {
			bad.add(fmt.Sprintf("endpoints[%d].name", i), fmt.Sprintf("%s is already the name of endpoints[%d]: give each endpoint its own (the protocol is the default)", quoted(e.Name), twin))
		}
		out = append(out, e)
	}
	return out
}

func normalizeEndpoint(e Endpoint, at string, bad *problems) Endpoint {
	e.Protocol = strings.ToLower(strings.TrimSpace(e.Protocol))
	switch {
	case e.Protocol == "":
		bad.add(at+"protocol", "is missing: for example http, grpc or tcp")
	case !isName(e.Protocol, ".-_+"):
		bad.add(at+"protocol", fmt.Sprintf("%s is not allowed: %s", quoted(e.Protocol), nameRule))
	}
	e.Name = strings.TrimSpace(e.Name)
	if e.Name == "" {
		e.Name = strings.ReplaceAll(e.Protocol, "+", "-")
	} else if !isName(e.Name, ".-_") {
		bad.add(at+"name", fmt.Sprintf("%s is not allowed: %s", quoted(e.Name), nameRule))
	}
	e.Host = normalizeHost(e.Host, at+"host", bad)
	if e.Port < 1 || e.Port > portMax {
		bad.add(at+"port", fmt.Sprintf("%d is not a port: 1 to %d", e.Port, portMax))
	}
	e.Path = strings.TrimSpace(e.Path)
	if len(e.Path) > endpointPathMax || !isPrintable(e.Path) {
		bad.add(at+"path", fmt.Sprintf("is not allowed: printable characters, at most %d bytes", endpointPathMax))
	}
	if e.Weight < 0 || e.Weight > endpointWeightMax {
		bad.add(at+"weight", fmt.Sprintf("%d is not a weight: 1 to %d, or 0 for %d", e.Weight, endpointWeightMax, endpointWeight))
	}
	if e.Weight == 0 {
		e.Weight = endpointWeight
	}
	return e
}

// isName holds for letters, digits and the marks, with a letter or digit at both ends.
func isName(s, marks string) bool {
	return s != "" && len(s) <= nameBytesMax && isAlphanumeric(s[0]) && isAlphanumeric(s[len(s)-1]) && consistsOf(s, marks)
}

// consistsOf holds for nothing but letters, digits and the marks.
func consistsOf(s, marks string) bool {
	for i := range len(s) {
		if !isAlphanumeric(s[i]) && strings.IndexByte(marks, s[i]) < 0 {
			return false
		}
	}
	return true
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// isID holds for what tells the instances of a service apart. A slash would cut
// a key of the engine in two.
func isID(s string) bool {
	return len(s) <= nameBytesMax && isPrintable(s) && !strings.Contains(s, "/")
}

// isText holds for what people write by hand: groups, zones, versions. The star
// means "all" in a query.
func isText(s string) bool { return isID(s) && !strings.Contains(s, "*") }

func isPrintable(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// quoted is a caller's text as an error may show it: escaped and not too long.
func quoted(s string) string {
	const shown = 64
	if len(s) > shown {
		return fmt.Sprintf("%q... (%d bytes)", s[:shown], len(s))
	}
	return fmt.Sprintf("%q", s)
}

package main

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// nameBytesMax bounds every name, as the server does.
const nameBytesMax = 253

// parseEndpoint reads [NAME=][PROTOCOL://]HOST:PORT[/PATH]. What may stand in a
// name is the server's to say; where its parts begin and end is ours.
func parseEndpoint(text, protocol string, weight int) (endpoint, error) {
	e := endpoint{Protocol: protocol, Weight: weight}
	rest := text
	if name, after, ok := strings.Cut(rest, "="); ok && !strings.ContainsAny(name, ":/") {
		e.Name, rest = name, after
		if name == "" {
			return endpoint{}, usagef("--addr: %q has no name before the =", text)
		}
	}
	if given, after, ok := strings.Cut(rest, "://"); ok {
		e.Protocol, rest = given, after
	}
	if e.Protocol == "" {
		return endpoint{}, usagef("--addr: %q has no protocol, such as http://", text)
	}
	if cut := strings.IndexByte(rest, '/'); cut >= 0 {
		e.Path, rest = rest[cut:], rest[:cut]
	}
	var reason string
	if e.Host, e.Port, reason = splitHostPort(rest); reason != "" {
		return endpoint{}, usagef("--addr: %s", reason)
	}
	return e, nil
}

// splitHostPort reads host:port, or says why it cannot.
func splitHostPort(text string) (host string, port int, reason string) {
	host, number, err := net.SplitHostPort(text)
	if err != nil || host == "" {
		return "", 0, fmt.Sprintf("%q is not host:port, such as 127.0.0.1:9001 or [::1]:9001", text)
	}
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || n == 0 {
		return "", 0, fmt.Sprintf("%q: the port is not a number from 1 to 65535", text)
	}
	return host, int(n), ""
}

// String is the endpoint as --addr takes it.
func (e endpoint) String() string {
	return e.Name + "=" + e.url()
}

func (e endpoint) url() string {
	return e.Protocol + "://" + net.JoinHostPort(e.Host, strconv.Itoa(e.Port)) + e.Path
}

// parsePairs reads key=value of a repeated flag.
func parsePairs(flag string, given []string) (map[string]string, error) {
	out := make(map[string]string, len(given))
	for _, text := range given {
		key, value, ok := strings.Cut(text, "=")
		if !ok || strings.TrimSpace(key) == "" {
			return nil, usagef("--%s: %q is not key=value", flag, text)
		}
		if _, twice := out[key]; twice {
			return nil, usagef("--%s: %q is given twice", flag, key)
		}
		out[key] = value
	}
	return out, nil
}

// checkSegment refuses what cannot be a part of a path: an empty one, and those
// that every HTTP library takes for folders.
func checkSegment(flag, text string) error {
	switch strings.TrimSpace(text) {
	case "":
		return usagef("%s: is missing", flag)
	case ".", "..":
		return usagef("%s: %q cannot stand in the path of a URL", flag, text)
	}
	return nil
}

// The rules of names, as the server has them.
const (
	namespaceRule = "letters, digits, '-' and '_', beginning and ending with a letter or digit, at most 253 bytes, not \"mesh\""
	serviceRule   = "letters, digits, '.', '-' and '_', beginning and ending with a letter or digit, at most 253 bytes"
	textRule      = "printable characters, at most 253 bytes"
	upstreamRule  = "{service}.{namespace}, or *.{namespace} for all of a namespace"
)

func isNamespace(s string) bool { return isName(s, "-_") && s != "mesh" }

func isService(s string) bool { return isName(s, ".-_") }

// isName holds for letters, digits and the marks, with a letter or digit at both ends.
func isName(s, marks string) bool {
	if s == "" || len(s) > nameBytesMax || !isAlphanumeric(s[0]) || !isAlphanumeric(s[len(s)-1]) {
		return false
	}
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

func isText(s string) bool {
	return len(s) <= nameBytesMax && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// isUpstream holds for what the xDS server takes as one. The namespace is behind
// the last dot, since it has none.
func isUpstream(s string) bool {
	cut := strings.LastIndexByte(s, '.')
	return cut > 0 && isNamespace(s[cut+1:]) && (s[:cut] == "*" || isService(s[:cut]))
}

// isAddress tells an IP address that a proxy can connect to.
func isAddress(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Zone() == "" && !ip.IsUnspecified()
}

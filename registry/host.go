package registry

import (
	"fmt"
	"net/netip"
	"strings"
)

const hostRule = "an IP address or a host name"

// normalizeHost checks the syntax of a host only. A host name is stored like an
// address; it cannot be sent to a proxy before it has been resolved.
func normalizeHost(text, field string, bad *problems) string {
	host := strings.ToLower(strings.TrimSpace(text))
	if bare, ok := strings.CutPrefix(host, "["); ok {
		host = strings.TrimSuffix(bare, "]")
	}
	if host == "" {
		bad.add(field, "is missing: "+hostRule)
		return host
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return normalizeIP(ip.Unmap(), field, bad)
	}
	host = strings.TrimSuffix(host, ".")
	if reason := hostNameProblem(host); reason != "" {
		bad.add(field, fmt.Sprintf("%s %s: %s", quoted(strings.TrimSpace(text)), reason, hostRule))
	}
	return host
}

func normalizeIP(ip netip.Addr, field string, bad *problems) string {
	switch {
	case ip.Zone() != "":
		bad.add(field, fmt.Sprintf("%s has a zone, which means something on one machine only: an address without '%%'", quoted(ip.String())))
	case ip.IsUnspecified():
		bad.add(field, fmt.Sprintf("%s is where to listen, not where to connect to: the address that callers reach", quoted(ip.String())))
	case ip.IsMulticast():
		bad.add(field, fmt.Sprintf("%s is a multicast address: the address of one machine", quoted(ip.String())))
	}
	return ip.String()
}

// hostNameProblem is empty for the syntax of RFC 1123, underscores allowed.
func hostNameProblem(host string) string {
	if host == "" || len(host) > nameBytesMax {
		return fmt.Sprintf("is not a host name of 1 to %d bytes", nameBytesMax)
	}
	labels := strings.Split(host, ".")
	for _, label := range labels {
		if len(label) > hostLabelBytesMax || !isName(label, "-_") {
			return "is neither an IP address nor a host name"
		}
	}
	if last := labels[len(labels)-1]; strings.Trim(last, "0123456789") == "" {
		return "ends in a number like an IPv4 address and is none"
	}
	return ""
}

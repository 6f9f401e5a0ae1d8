package probe

import (
	"fmt"
	"net/netip"
	"slices"
)

// Rules say which addresses may be tried. They are asked about each address that
// a name stands for, and the one that was allowed is connected to: a name that
// means another machine the next moment leads nowhere.
//
// Whoever may register can have the cluster connect to what he names, from where
// the cluster stands. Beyond loopback that must not be what he could not reach by
// himself: this machine, its neighbours on the link, the metadata of a cloud.
type Rules struct {
	// Allow, when not empty, are the only addresses that may be tried. One that is
	// here may also be of this machine or link, since the operator has said so.
	Allow []netip.Prefix
	// Deny are never tried.
	Deny []netip.Prefix
	// Home says that this member listens on loopback only. Then whoever can
	// register is on this machine and reaches what can be reached from it anyway.
	Home bool
}

// metadata are where clouds answer without asking who it is. They are never
// tried, whatever the operator allows: who allows a network may not think of them.
var metadata = []netip.Prefix{
	netip.MustParsePrefix("169.254.169.254/32"), // AWS, Azure, Google Cloud, and most others
	netip.MustParsePrefix("169.254.170.0/24"),   // credentials of containers on AWS
	netip.MustParsePrefix("fd00:ec2::254/128"),
	netip.MustParsePrefix("fd00:ec2::23/128"),
	netip.MustParsePrefix("fd20:ce::254/128"),
	netip.MustParsePrefix("100.100.100.200/32"), // Alibaba Cloud
	netip.MustParsePrefix("168.63.129.16/32"),   // Azure
	netip.MustParsePrefix("192.0.0.192/32"),     // Oracle Cloud
}

// wrapped are ranges of IPv6 in which an IPv4 address is carried, and the byte where it begins.
var wrapped = []struct {
	prefix netip.Prefix
	at     int
}{
	{netip.MustParsePrefix("64:ff9b::/96"), 12},
	{netip.MustParsePrefix("2002::/16"), 2},
	{netip.MustParsePrefix("::/96"), 12},
}

// Check says why an address is not tried, or nothing.
func (r *Rules) Check(ip netip.Addr) string {
	ip = ip.Unmap().WithZone("")
	if inner, ok := unwrap(ip); ok {
		if reason := r.Check(inner); reason != "" {
			return reason + ", in the form of " + ip.String()
		}
	}
	allowed := within(r.Allow, ip)
	switch {
	case ip.IsUnspecified() || ip.IsMulticast() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return fmt.Sprintf("%s is not the address of one machine", ip)
	case within(metadata, ip):
		return fmt.Sprintf("%s is where a cloud keeps its metadata", ip)
	case within(r.Deny, ip):
		return fmt.Sprintf("%s is denied by health.deny", ip)
	case len(r.Allow) > 0 && !allowed:
		return fmt.Sprintf("%s is not allowed by health.allow", ip)
	case ip.IsLinkLocalUnicast() && !allowed:
		return fmt.Sprintf("%s is link-local, and health.allow does not name it", ip)
	case ip.IsLoopback() && !allowed && !r.Home:
		return fmt.Sprintf("%s is loopback, and health.allow does not name it", ip)
	}
	return ""
}

// maySend says whether what a registration gives may be sent to an address: text
// of somebody's choice is a command to whatever listens there.
func (r *Rules) maySend(ip netip.Addr) bool {
	return r.Home || within(r.Allow, ip.Unmap())
}

func within(prefixes []netip.Prefix, ip netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// unwrap is the IPv4 address that is carried in one of IPv6.
func unwrap(ip netip.Addr) (netip.Addr, bool) {
	if ip.Is4() || ip.IsLoopback() || ip.IsUnspecified() {
		return netip.Addr{}, false
	}
	b := ip.As16()
	for _, w := range wrapped {
		if w.prefix.Contains(ip) {
			return netip.AddrFrom4([4]byte(b[w.at : w.at+4])), true
		}
	}
	return netip.Addr{}, false
}

package probe

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// TestWhatIsNotTried shows which addresses the rules allow, in whatever form they come.
func TestWhatIsNotTried(t *testing.T) {
	home, away := Rules{Home: true}, Rules{}
	opened := Rules{Allow: prefixes("127.0.0.0/8", "169.254.0.0/16", "10.0.0.0/8", "0.0.0.0/0"), Deny: prefixes("10.9.0.0/16")}
	narrow := Rules{Allow: prefixes("10.0.0.0/8"), Home: true}
	cases := map[string]struct {
		rules *Rules
		ip    string
		says  string // "" = it is tried
	}{
		"an address":                         {&away, "10.0.0.1", ""},
		"one of IPv6":                        {&away, "2001:db8::1", ""},
		"a private one of IPv6":              {&away, "fd00::1", ""},
		"loopback":                           {&away, "127.0.0.1", "is loopback"},
		"loopback, elsewhere in it":          {&away, "127.9.9.9", "is loopback"},
		"loopback of IPv6":                   {&away, "::1", "is loopback"},
		"loopback at home":                   {&home, "127.0.0.1", ""},
		"loopback that is allowed":           {&opened, "127.0.0.1", ""},
		"link-local":                         {&away, "169.254.1.1", "is link-local"},
		"link-local at home":                 {&home, "169.254.1.1", "is link-local"},
		"link-local of IPv6":                 {&home, "fe80::1", "is link-local"},
		"link-local of IPv6 with a zone":     {&home, "fe80::1%eth0", "is link-local"},
		"link-local that is allowed":         {&opened, "169.254.1.1", ""},
		"metadata":                           {&away, "169.254.169.254", "its metadata"},
		"metadata, though the net's allowed": {&opened, "169.254.169.254", "its metadata"},
		"metadata at home":                   {&home, "169.254.169.254", "its metadata"},
		"metadata of containers":             {&opened, "169.254.170.2", "its metadata"},
		"metadata of IPv6":                   {&home, "fd00:ec2::254", "its metadata"},
		"metadata of Alibaba Cloud":          {&home, "100.100.100.200", "its metadata"},
		"metadata of Azure":                  {&home, "168.63.129.16", "its metadata"},
		"metadata, mapped":                   {&home, "::ffff:169.254.169.254", "its metadata"},
		"metadata, compatible":               {&home, "::169.254.169.254", "its metadata"},
		"metadata, through NAT64":            {&home, "64:ff9b::a9fe:a9fe", "its metadata"},
		"metadata, through 6to4":             {&home, "2002:a9fe:a9fe::1", "its metadata"},
		"loopback, through NAT64":            {&away, "64:ff9b::7f00:1", "is loopback, and health.allow does not name it, in the form of 64:ff9b::7f00:1"},
		"loopback, mapped":                   {&away, "::ffff:127.0.0.1", "is loopback"},
		"nothing":                            {&home, "0.0.0.0", "not the address of one machine"},
		"nothing of IPv6":                    {&home, "::", "not the address of one machine"},
		"multicast":                          {&opened, "224.0.0.1", "not the address of one machine"},
		"multicast of IPv6":                  {&home, "ff02::1", "not the address of one machine"},
		"broadcast":                          {&opened, "255.255.255.255", "not the address of one machine"},
		"denied":                             {&opened, "10.9.0.1", "denied by health.deny"},
		"not among the allowed":              {&narrow, "11.0.0.1", "not allowed by health.allow"},
		"loopback, not among the allowed":    {&narrow, "127.0.0.1", "not allowed by health.allow"},
		"among the allowed":                  {&narrow, "10.1.2.3", ""},
	}
	for _, name := range slices.Sorted(maps.Keys(cases)) {
		t.Run(name, func(t *testing.T) {
			c := cases[name]
			got := c.rules.Check(netip.MustParseAddr(c.ip))
			if (got == "") != (c.says == "") || !strings.Contains(got, c.says) {
				t.Fatalf("%s: %q, want %q", c.ip, got, c.says)
			}
		})
	}
	mustEqual(t, "whether something may be sent at home", home.maySend(netip.MustParseAddr("10.0.0.1")), true)
	mustEqual(t, "whether something may be sent elsewhere", away.maySend(netip.MustParseAddr("10.0.0.1")), false)
	mustEqual(t, "whether something may be sent where it is allowed", narrow.maySend(netip.MustParseAddr("::ffff:10.0.0.1")), true)
}

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range texts {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

package process

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strings"
)

// portLow is where the search for free ports begins.
const portLow = 12000

// FreePorts finds n loopback ports that nobody listens on. They lie below those
// that the kernel gives to outgoing connections: a port from there could be
// taken between a kill and a restart, or be connected to itself by a peer that
// dials the dead member. Somebody may still be quicker: see Clashed.
func FreePorts(n int) ([]int, error) {
	high := ephemeralLow()
	var ports []int
	var held []net.Listener
	defer func() {
		for _, l := range held {
			l.Close()
		}
	}()
	for tries := 0; len(ports) < n && tries < 200*n; tries++ {
		port := 0
		if high > portLow+1000 {
			port = portLow + rand.IntN(high-portLow)
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue // taken
		}
		held = append(held, l)
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	if len(ports) < n {
		return nil, fmt.Errorf("found %d free ports of %d on 127.0.0.1", len(ports), n)
	}
	return ports, nil
}

// ephemeralLow is the first port that outgoing connections may get.
func ephemeralLow() int {
	low, high := 32768, 0
	if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		if _, err := fmt.Sscan(string(b), &low, &high); err != nil {
			return 32768
		}
	}
	return low
}

// Clashed tells whether a process has ended because another one had its port.
func (p *Process) Clashed() bool {
	return !p.Running() && strings.Contains(p.Output(), "address already in use")
}

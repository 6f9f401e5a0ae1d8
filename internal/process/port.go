package process

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// portLow is where the search for free ports begins.
const portLow = 12000

// FreePorts finds n loopback ports that nobody listens on. They lie below those
// that the kernel gives to outgoing connections: a port from there could be
// taken between a kill and a restart, or be connected to itself by a peer that
// dials the dead member. Nobody who asks here gets them again while this process
// lives, also not before their holder has started, or between its end and its next
// start. Others may still be quicker: see Clashed.
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
		port = l.Addr().(*net.TCPAddr).Port
		if ours, err := claimed.take(port); err != nil {
			return nil, err
		} else if ours {
			ports = append(ports, port)
		}
	}
	if len(ports) < n {
		return nil, fmt.Errorf("found %d free ports of %d on 127.0.0.1", len(ports), n)
	}
	return ports, nil
}

// claims are the ports that this process has given away, and a file in which each of
// them is a locked byte, so that the tests of other packages see it. The kernel takes
// the locks away with the process, however that ends.
type claims struct {
	mu    sync.Mutex
	ports map[int]bool
	file  *os.File // stays open: to close it would end the locks
}

var claimed = claims{ports: make(map[int]bool)}

// take is false when somebody has the port.
func (c *claims) take(port int) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ports[port] {
		return false, nil
	}
	if c.file == nil {
		var err error
		if c.file, err = os.OpenFile(filepath.Join(os.TempDir(), fmt.Sprintf("stellmap-ports-%d", os.Getuid())), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
			return false, fmt.Errorf("claiming port %d: %w", port, err)
		}
	}
	err := syscall.FcntlFlock(c.file.Fd(), syscall.F_SETLK, &syscall.Flock_t{Type: syscall.F_WRLCK, Start: int64(port), Len: 1})
	switch {
	case err == nil:
		c.ports[port] = true
		return true, nil
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EACCES):
		return false, nil
	}
	return false, fmt.Errorf("claiming port %d in %s: %w", port, c.file.Name(), err)
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

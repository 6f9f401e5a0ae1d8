package freeport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
)

const (
	low   = 12000 // where the search begins
	least = 1000  // of so many it chooses; where the kernel gives away nearly all, the choice is the kernel's
)

// Find is n ports of 127.0.0.1 that nobody listens on; nor does anybody on those
// that lie at the distances `also` above each. Nobody who asks here gets any of them
// again while this process lives.
func Find(n int, also ...int) ([]int, error) {
	var ports []int
	var s search
	defer s.end()
	high := ephemeralLow() - slices.Max(append(also, 0))
	for tries := 0; len(ports) < n && tries < 200*n; tries++ {
		first := 0
		if high > low+least {
			first = low + rand.IntN(high-low)
		}
		port, err := s.row(first, also)
		if err != nil {
			return nil, err
		}
		if port != 0 {
			ports = append(ports, port)
		}
	}
	if len(ports) < n {
		return nil, fmt.Errorf("found %d free ports of %d on 127.0.0.1", len(ports), n)
	}
	return ports, nil
}

// Addresses is Find, as host:port.
func Addresses(n int) ([]string, error) {
	ports, err := Find(n)
	addresses := make([]string, len(ports))
	for i, port := range ports {
		addresses[i] = fmt.Sprintf("127.0.0.1:%d", port)
	}
	return addresses, err
}

// search holds what it has found open, and what was of no use, so that nothing is looked at twice.
type search struct{ held []net.Listener }

func (s *search) end() {
	for _, l := range s.held {
		l.Close()
	}
}

// row is the first port, 0 for one of the kernel's choice, or 0 when it or one above it is taken.
func (s *search) row(first int, also []int) (int, error) {
	first, err := s.hold(first)
	for _, distance := range also {
		if first == 0 || err != nil {
			return 0, err
		}
		var next int
		if next, err = s.hold(first + distance); next == 0 {
			first = 0
		}
	}
	return first, err
}

// hold is the port that it listens on, or 0 when somebody has it.
func (s *search) hold(port int) (int, error) {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return 0, nil // taken, or no port at all
	}
	s.held = append(s.held, l)
	port = l.Addr().(*net.TCPAddr).Port
	if ours, err := claimed.take(port); err != nil || !ours {
		return 0, err
	}
	return port, nil
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

package freeport

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// Free ports are different ones, and can be listened on, as can those above them; none is from where the kernel takes
// the ports that nobody names, unless it has all but a few for that.
func TestPortsAreFree(t *testing.T) {
	const above = 100
	ports, err := Find(20, above)
	if err != nil {
		t.Fatal(err)
	}
	if len(ports) != 20 {
		t.Fatalf("%d ports of 20", len(ports))
	}
	high := ephemeralLow()
	for _, first := range ports {
		if high-above > low+least && (first < low || first+above >= high) {
			t.Errorf("%d and %d are not from %d to %d", first, first+above, low, high)
		}
		for _, port := range []int{first, first + above} {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if err != nil {
				t.Fatal(err) // the same one twice fails here
			}
			defer l.Close()
		}
	}
}

// A port whose neighbour somebody has is of no use.
func TestAPortWithATakenNeighbourIsLeft(t *testing.T) {
	taken, err := Find(1)
	if err != nil {
		t.Fatal(err)
	}
	var s search
	defer s.end()
	if got, err := s.row(taken[0]-1, []int{1}); got != 0 || err != nil {
		t.Errorf("given though the one above it is somebody's: %d, %v", got, err)
	}
}

// A port is nobody else's while the process lives that it was given to: not another
// asker's in it, nor one's in another process.
func TestAPortIsGivenOnce(t *testing.T) {
	if port := os.Getenv("CLAIM"); port != "" {
		n, err := strconv.Atoi(port)
		if err != nil {
			t.Fatal(err)
		}
		ours, err := claimed.take(n)
		fmt.Printf("ours %t %v\n", ours, err)
		return
	}
	ports, err := Find(1)
	if err != nil {
		t.Fatal(err)
	}
	if ours, err := claimed.take(ports[0]); ours || err != nil {
		t.Errorf("given twice in one process: %t, %v", ours, err)
	}
	nobodys := 1<<16 + os.Getpid() // no port at all, and not what another run of this test asks for
	for port, want := range map[int]string{ports[0]: "ours false <nil>", nobodys: "ours true <nil>"} {
		other := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestAPortIsGivenOnce$")
		other.Env = append(os.Environ(), fmt.Sprint("CLAIM=", port))
		if out, err := other.CombinedOutput(); err != nil || !strings.Contains(string(out), want) {
			t.Errorf("another process that asks for %d: %v, %s", port, err, out)
		}
	}
}

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stellmap/stellmap/internal/process"
)

// lan is a network of namespaces: each member has one, with a cable to a bridge
// in that of the test, where the clients are.
//
//	 n1            n2            n3
//	eth0          eth0          eth0      127.1.0.1, .2, .3
//	  |             |             |
//	port1         port2         port3
//	  └───────── bridge ──────────┘        127.1.0.254: the test
//
// stellmapd listens on loopback addresses only. So these are such, and their
// namespaces are told that they lie outside: only 127.0.0.1 stays local, and
// route_localnet lets the others travel over a cable like any address.
//
// It ends with the processes in it: nothing is left on the machine.
type lan struct {
	t     *testing.T
	nodes []*process.Process // each holds a namespace; members come and go in it
	holes []map[int]bool     // by node: those to whom its packets vanish
	gone  int                // packets that had vanished when the holes began
}

const (
	lanBridge = "bridge"
	lanSelf   = 254
	lanNodes  = 5
	lanTime   = 10 * time.Second // for a namespace to be there
)

// lanHost is the address of a node.
func lanHost(i int) string { return lanAddress(i + 1) }

func lanAddress(last int) string { return fmt.Sprintf("127.1.0.%d", last) }

// ownNetwork says to a test that it is in a network namespace of its own.
const ownNetwork = "E2E_OWN_NETWORK"

// inOwnNetwork runs the test once more in a process of its own, whose network
// namespace is a new one, and tells whether this is that process. The error says
// why such a namespace cannot be had.
func inOwnNetwork(t *testing.T, flags ...string) (inside bool, err error) {
	t.Helper()
	if os.Getenv(ownNetwork) != "" {
		return true, nil
	}
	for _, tool := range []string{"ip", "tc", "nsenter", "unshare"} {
		if _, err := exec.LookPath(tool); err != nil {
			return false, err
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"-test.v", "-test.run", "^" + t.Name() + "$"}
	if deadline, ok := t.Deadline(); ok {
		args = append(args, "-test.timeout", (time.Until(deadline) - 5*time.Second).String())
	}
	cmd := exec.Command(self, append(args, flags...)...)
	cmd.Env = append(os.Environ(), ownNetwork+"=1", binVariable+"="+bin)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return false, fmt.Errorf("make a network namespace as uid %d: %w", os.Geteuid(), err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("in a network of its own: %v; what it said stands above", err)
	}
	return false, nil
}

// newLAN makes the network. The error says what cannot be done here.
func newLAN(t *testing.T, nodes int) (*lan, error) {
	t.Helper()
	l := &lan{t: t}
	if err := errors.Join(outside(), execute("ip", "link", "add", lanBridge, "type", "bridge"),
		execute("ip", "address", "add", lanAddress(lanSelf)+"/24", "dev", lanBridge),
		execute("ip", "link", "set", lanBridge, "up")); err != nil {
		return nil, err
	}
	for i := range nodes {
		if err := l.add(i); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// add makes the namespace of a node, with its cable.
func (l *lan) add(i int) error {
	name := fmt.Sprintf("node%d", i+1)
	p, err := process.Start(process.Options{Name: name, Path: "unshare", Args: []string{"--net", "sleep", "infinity"}, Logs: l.t.TempDir()})
	if err != nil {
		return err
	}
	l.t.Cleanup(func() {
		if err := p.Kill(); err != nil {
			l.t.Error(err)
		}
	})
	l.nodes, l.holes = append(l.nodes, p), append(l.holes, make(map[int]bool))
	if _, err := process.Within(l.t.Context(), lanTime, "the namespace of "+name, func() error { return elsewhere(p) }); err != nil {
		return err
	}
	if err := execute("ip", "link", "add", l.port(i), "type", "veth", "peer", "name", "eth0", "netns", fmt.Sprint(p.PID())); err != nil {
		return err
	}
	local := l.inside(i, "sh", "-ec", strings.Join([]string{
		"echo 1 >" + routeLocalnet, "ip link set lo up", "ip route del local 127.0.0.0/8 dev lo table local",
		"ip address add " + lanHost(i) + "/24 dev eth0", "ip link set eth0 up"}, "\n"))
	return errors.Join(execute(local...), execute("ip", "link", "set", l.port(i), "master", lanBridge, "up"),
		execute("tc", "qdisc", "add", "dev", l.port(i), "clsact"), l.drop(i))
}

// elsewhere is nil when a process has left this network namespace, and is what
// it was started to be.
func elsewhere(p *process.Process) error {
	if !p.Running() {
		return fmt.Errorf("it has ended: %s", p.Output())
	}
	here, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return err
	}
	there, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", p.PID()))
	if err == nil && there == here {
		err = errors.New("it is in this one")
	}
	return err
}

const routeLocalnet = "/proc/sys/net/ipv4/conf/all/route_localnet"

// outside lets this process's namespace take 127.0.0.2 and above for addresses of others.
func outside() error {
	return errors.Join(os.WriteFile(routeLocalnet, []byte("1"), 0o644), execute("ip", "link", "set", "lo", "up"),
		execute("ip", "route", "del", "local", "127.0.0.0/8", "dev", "lo", "table", "local"))
}

// inside is a command that runs in the namespace of a node, as the process that is started.
func (l *lan) inside(i int, command ...string) []string {
	return append([]string{"nsenter", "--target", fmt.Sprint(l.nodes[i].PID()), "--net", "--"}, command...)
}

func (l *lan) port(i int) string { return fmt.Sprintf("port%d", i+1) }

// unplug takes a node off the network, clients included; plug puts it back.
func (l *lan) unplug(i int) { l.must(execute("ip", "link", "set", l.port(i), "down")) }
func (l *lan) plug(i int)   { l.must(execute("ip", "link", "set", l.port(i), "up")) }

// cut makes packets between two nodes vanish in one direction. Nobody is told.
func (l *lan) cut(from, to int) {
	if !slices.ContainsFunc(l.holes, func(to map[int]bool) bool { return len(to) > 0 }) {
		l.gone = l.vanished()
	}
	l.holes[from][to] = true
	l.must(l.drop(from))
}

// heal ends all cuts. They must have swallowed something, or nothing was tried.
func (l *lan) heal() {
	if l.vanished() == l.gone {
		l.t.Error("no packet has vanished: the network was not cut")
	}
	for i := range l.holes {
		if len(l.holes[i]) > 0 {
			clear(l.holes[i])
			l.must(l.drop(i))
		}
	}
}

// vanished is how many packets the bridge's ports have dropped so far.
func (l *lan) vanished() int {
	all := 0
	for i := range l.nodes {
		out, err := exec.Command("tc", "-s", "qdisc", "show", "dev", l.port(i), "clsact").Output()
		l.must(err)
		_, rest, _ := strings.Cut(string(out), "dropped ")
		n := 0
		if _, err := fmt.Sscanf(rest, "%d,", &n); err != nil {
			l.t.Fatalf("read how many packets were dropped: %v in %q", err, out)
		}
		all += n
	}
	return all
}

// refuse gives a node a black-hole route to another: whatever it would send there fails at once.
func (l *lan) refuse(from, to int) {
	l.must(execute(l.inside(from, "ip", "route", "add", "blackhole", lanHost(to)+"/32")...))
}

// allow takes the route away.
func (l *lan) allow(from, to int) {
	l.must(execute(l.inside(from, "ip", "route", "del", "blackhole", lanHost(to)+"/32")...))
}

func (l *lan) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// drop puts in place which packets of a node the bridge's port does not take.
func (l *lan) drop(from int) error {
	return execute("tc", "filter", "replace", "dev", l.port(from), "ingress", "protocol", "all", "prio", "1", "handle", "1",
		"bpf", "direct-action", "bytecode", dropping(l.holes[from]))
}

// dropping is a classic BPF program: it drops IPv4 packets to the given nodes,
// which it knows by the last byte of the address.
func dropping(to map[int]bool) string {
	const (
		loadHalf, loadByte, jumpEqual, end = 0x28, 0x30, 0x15, 0x06
		typeAt, ipv4, lastByteAt           = 12, 0x0800, 33
		goOn, shot                         = 0xffffffff, 2
	)
	targets := make([]int, 0, len(to))
	for i := range to {
		targets = append(targets, i)
	}
	slices.Sort(targets)
	n := len(targets)
	program := []string{
		fmt.Sprintf("%d 0 0 %d", loadHalf, typeAt),
		fmt.Sprintf("%d 0 %d %d", jumpEqual, n+1, ipv4), // all else passes
		fmt.Sprintf("%d 0 0 %d", loadByte, lastByteAt),
	}
	for at, i := range targets {
		program = append(program, fmt.Sprintf("%d %d 0 %d", jumpEqual, n-at, i+1))
	}
	program = append(program, fmt.Sprintf("%d 0 0 %d", end, uint32(goOn)), fmt.Sprintf("%d 0 0 %d", end, shot))
	return fmt.Sprintf("%d,%s", len(program), strings.Join(program, ","))
}

// execute runs a command of the system.
func execute(command ...string) error {
	if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

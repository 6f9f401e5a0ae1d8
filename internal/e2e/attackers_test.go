package e2e

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// An attack is one way of asking too much of a member.
type attack struct {
	name    string
	ports   []int // that it is made on, by their index
	crowd   int   // connections at once
	acts    int64 // that it must have done to be in force; 0 = one for each connection
	held    int64 // bytes that each of its connections may hold in the member
	heldMax int64 // that all of them may; 0 = there is no other bound
	raw     bool  // it is made below TLS
	secure  bool  // it is for members with TLS only
	// do is one connection's part; it is begun anew until the attack is over. An error is that of a member that
	// does not do what it should, and not one of a connection that was cut, which is what should happen.
	do func(ctx context.Context, at *target, conn net.Conn) error
}

// mayHold is what all its connections may hold in the member, as docs/security.md says.
func (a attack) mayHold() int64 {
	if n := int64(a.crowd) * a.held; a.heldMax == 0 || n < a.heldMax {
		return n
	}
	return a.heldMax
}

// allAttacks are those with so many connections at once, and so many that say nothing.
func allAttacks(attackers, idlers int) []attack {
	all := slices.Concat(attacksOnConnections(idlers), attacksOnHTTP(attackers), attacksOnHTTP2(attackers))
	for i := range all {
		all[i].crowd = cmp.Or(all[i].crowd, attackers)
	}
	return all
}

// attackPlan says to the attackers what to do. They are a process of their own, so that a well-behaved client does not
// wait in their queues. Where the time of answers is bounded they have the lowest priority, as if they had a machine of
// their own: they take neither what the member needs nor what that client does. What they make the member do, it does
// at its own priority.
type attackPlan struct {
	Name              string // of the attack
	Port              int
	Attackers, Idlers int
	Address, Host     string // of the member's port; what its certificate says
	Trust, As         string // the folder of its authority and whose certificate to come with; "" = there is no TLS
}

// attackVariable makes this program one that attacks.
const attackVariable = "E2E_ATTACK"

const (
	attackTold  = 50 * time.Millisecond // how often they say how much they have done
	attackPause = time.Second           // before one who says nothing comes again: who comes at once is no idle connection
)

// attackersProcess is such a process, as its parent sees it.
type attackersProcess struct {
	acts atomic.Int64 // done so far
	cmd  *exec.Cmd
	in   io.Closer // its end is the attack's
	read sync.WaitGroup
	end  func() error // ends it, once

	mu   sync.Mutex // guards what follows
	said []string   // what is wrong with the member
}

// send begins an attack on a port.
func (v *victim) send(t *testing.T, plan attackPlan) *attackersProcess {
	t.Helper()
	plan.Address, plan.Host = v.address(plan.Port), v.host
	if v.authority != nil {
		plan.Trust, plan.As = v.authority.dir, attackerNames[plan.Port]
	}
	text, err := json.Marshal(plan)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	a := &attackersProcess{cmd: exec.Command(self)}
	if *attackFor > 0 {
		a.cmd = exec.Command("nice", "-n", "19", self)
	}
	a.cmd.Env = append(os.Environ(), attackVariable+"="+string(text))
	a.cmd.Stderr, a.cmd.SysProcAttr = os.Stderr, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := a.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := a.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	a.in = in
	a.read.Go(func() { a.listen(out) })
	a.end = sync.OnceValue(func() error {
		a.in.Close()
		a.read.Wait()
		return a.cmd.Wait()
	})
	t.Cleanup(func() { a.end() }) //nolint:errcheck // who has stopped it has seen the error
	return a
}

// listen takes in what they say: numbers, and what is wrong.
func (a *attackersProcess) listen(out io.Reader) {
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var n int64
		if _, err := fmt.Sscanf(lines.Text(), "acts %d", &n); err == nil {
			a.acts.Store(n)
			continue
		}
		a.mu.Lock()
		a.said = append(a.said, lines.Text())
		a.mu.Unlock()
	}
	io.Copy(io.Discard, out) //nolint:errcheck // a line that is too long holds nobody up
}

func (a *attackersProcess) fault() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.said) == 0 {
		return nil
	}
	return errors.New(a.said[0]) // the others say the same
}

// stop ends the attack, and tells what was wrong.
func (a *attackersProcess) stop() error { return errors.Join(a.end(), a.fault()) }

// A target is what the attackers know of a member, and what they have done to it.
type target struct {
	attackPlan
	trust *tls.Config // by which one gets through the port's TLS; nil = there is none
	from  atomic.Uint32
	acts  atomic.Int64
}

// attackAsTold is such a process's whole life. It ends with its input.
func attackAsTold(plan string) error {
	at, one, err := planned(plan)
	if err != nil {
		return err
	}
	ctx, end := context.WithCancel(context.Background())
	go func() { // ends with the process's input
		io.Copy(io.Discard, os.Stdin) //nolint:errcheck // it has ended, be it by an error
		end()
	}()
	var crowd sync.WaitGroup
	broken := make(chan error, one.crowd)
	for range one.crowd {
		crowd.Go(func() {
			if err := at.attack(ctx, one); err != nil {
				broken <- err
			}
		})
	}
	told := time.NewTicker(attackTold)
	defer told.Stop()
	for ctx.Err() == nil {
		select {
		case err := <-broken:
			tell(err)
		case <-told.C:
			fmt.Println("acts", at.acts.Load())
		case <-ctx.Done():
		}
	}
	crowd.Wait()
	close(broken)
	for err := range broken {
		tell(err)
	}
	return nil
}

// planned is who is to be attacked, and how.
func planned(text string) (*target, attack, error) {
	at := &target{}
	if err := json.Unmarshal([]byte(text), &at.attackPlan); err != nil {
		return nil, attack{}, err
	}
	if at.Trust != "" {
		trust, err := trustIn(at.Trust, at.As)
		if err != nil {
			return nil, attack{}, err
		}
		trust.ServerName, trust.NextProtos = at.Host, []string{"http/1.1"}
		if at.Port == 1 || at.Port == 2 {
			trust.NextProtos = []string{"h2"}
		}
		at.trust = trust
	}
	all := allAttacks(at.Attackers, at.Idlers)
	i := slices.IndexFunc(all, func(a attack) bool { return a.name == at.Name && slices.Contains(a.ports, at.Port) })
	if i < 0 {
		return nil, attack{}, fmt.Errorf("there is no attack %q on the port %d", at.Name, at.Port)
	}
	return at, all[i], nil
}

// tell says in a line what is wrong with the member.
func tell(err error) { fmt.Println(strings.ReplaceAll(err.Error(), "\n", " ")) }

// attack is one connection of a crowd after the other.
func (at *target) attack(ctx context.Context, one attack) error {
	for ctx.Err() == nil {
		conn, err := at.dial(ctx, one.raw)
		if err != nil {
			continue // the member may turn whom it likes away
		}
		over := context.AfterFunc(ctx, func() { conn.Close() })
		err = one.do(ctx, at, conn)
		over()
		conn.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// dial connects from one of many addresses: no bound of one address is what holds.
func (at *target) dial(ctx context.Context, raw bool) (net.Conn, error) {
	from := at.from.Add(1)
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+from%200))}}
	conn, err := d.DialContext(ctx, "tcp", at.Address)
	if err != nil || raw || at.trust == nil {
		return conn, err
	}
	secure := tls.Client(conn, at.trust)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return secure, nil
}

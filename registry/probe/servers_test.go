package probe

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stellmap/stellmap/registry"
)

var serversFlag = flag.Bool("servers", false, "check a real Redis and a real MariaDB; scripts/servers gets them")

// serverTime is for a server to come up, on a slow machine.
const serverTime = time.Minute

// TestRealRedis checks a Redis that works, wants a password, is stopped, and is gone.
func TestRealRedis(t *testing.T) {
	if !*serversFlag {
		t.Skip("make probes runs it")
	}
	check := registry.Check{Kind: registry.CheckRedis}
	at := refused(t)
	_, port, err := net.SplitHostPort(at)
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, "redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", t.TempDir())
	awaitPass(t, check, at)
	if out, err := exec.Command("redis-cli", "-p", port, "config", "set", "requirepass", "secret").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	mustPass(t, tried(site(), check, at)) // it wants a password, and works
	mustSignal(t, s, syscall.SIGSTOP)
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	check.TimeoutSeconds = 1
	mustFail(t, site().try(ctx, check, endpointAt(at)), "nothing within 1s")
	mustSignal(t, s, syscall.SIGCONT)
	mustPass(t, tried(site(), check, at))
	mustSignal(t, s, syscall.SIGKILL)
	<-s.ended
	mustFail(t, tried(site(), check, at), "connection refused")
}

// mysqlErrorsMax is after how many connections that say nothing the server shuts a host out.
const mysqlErrorsMax = 10

// TestRealMariaDB checks a MariaDB many times more often than it suffers
// connections that leave without a word, from an address that it counts them of.
func TestRealMariaDB(t *testing.T) {
	if !*serversFlag {
		t.Skip("make probes runs it")
	}
	host := outward(t)
	check := registry.Check{Kind: registry.CheckMySQL}
	_, port, err := net.SplitHostPort(refused(t))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if out, err := exec.Command("mariadb-install-db", "--no-defaults", "--user=root", "--datadir="+dir, "--auth-root-authentication-method=normal", "--skip-test-db").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s := serve(t, "/usr/sbin/mariadbd", "--no-defaults", "--user=root", "--datadir="+dir, "--port="+port, "--bind-address=0.0.0.0",
		"--socket="+filepath.Join(dir, "s"), fmt.Sprint("--max-connect-errors=", mysqlErrorsMax), "--innodb-buffer-pool-size=8M")
	at := net.JoinHostPort(host, port)
	awaitPass(t, check, at)
	mustPass(t, tried(site(), check, at)) // nobody may come from here, but for whom the server has no word yet
	sql := func(statement string) {
		t.Helper()
		if out, err := exec.Command("mariadb", "--no-defaults", "--socket="+filepath.Join(dir, "s"), "--user=root", "-e", statement).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", statement, err, out)
		}
	}
	sql("CREATE USER 'app'@'%' IDENTIFIED BY 'secret'") // now somebody may come from anywhere
	for range 5 * mysqlErrorsMax {
		mustPass(t, tried(site(), check, at))
	}
	greeted := registry.Check{Kind: registry.CheckTCP, Send: "x"} // says nothing that the server understands
	for range 5 * mysqlErrorsMax {
		tried(site(), greeted, at)
	}
	if o := tried(site(), check, at); o.Status == registry.StatusCritical {
		t.Logf("as it should be, one who says nothing is shut out: %s", o.Reason)
	} else {
		t.Log("this server does not shut out who says nothing: it does not resolve names")
	}
	sql("FLUSH HOSTS")
	sql("SET GLOBAL max_connections = 10")
	var open []net.Conn
	for range 20 {
		conn, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		open = append(open, conn)
		if _, _, err := readPacket(conn); err != nil { // it is counted once it is greeted
			t.Fatal(err)
		}
	}
	mustFail(t, tried(site(), check, at), "MySQL answers 1040")
	for _, conn := range open {
		conn.Close()
	}
	mustSignal(t, s, syscall.SIGKILL)
	<-s.ended
	mustFail(t, tried(site(), check, at), "connection refused")
}

// A server is a process; the test's end kills it.
type server struct {
	*exec.Cmd
	ended chan struct{}
}

func serve(t *testing.T, name string, args ...string) *server {
	t.Helper()
	s := &server{exec.Command(name, args...), make(chan struct{})}
	var said bytes.Buffer
	s.Stdout, s.Stderr = &said, &said
	if err := s.Start(); err != nil {
		t.Fatalf("%v: scripts/servers gets it", err)
	}
	go func() {
		defer close(s.ended)
		s.Wait() // it is killed, and says so
	}()
	t.Cleanup(func() {
		s.Process.Kill() // unless it has ended
		<-s.ended
		if t.Failed() {
			t.Logf("%s said:\n%s", name, said.String())
		}
	})
	return s
}

func mustSignal(t *testing.T, s *server, signal syscall.Signal) {
	t.Helper()
	if err := s.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
}

func awaitPass(t *testing.T, check registry.Check, at string) {
	t.Helper()
	var last Outcome
	for deadline := time.Now().Add(serverTime); time.Now().Before(deadline); <-time.After(50 * time.Millisecond) {
		if last = tried(site(), check, at); last == passes {
			return
		}
	}
	t.Fatalf("it does not come up: %+v", last)
}

// outward is an address of this machine that is not loopback.
func outward(t *testing.T) string {
	t.Helper()
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.To4() != nil && ip.IP.IsGlobalUnicast() {
			return ip.IP.String()
		}
	}
	t.Log("this machine has no address but loopback, of which MariaDB does not count who says nothing")
	return "127.0.0.1"
}

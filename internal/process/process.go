package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// A Process is a program that was started. It leads a process group, so that
// its children end with it; the kernel kills it when its starter dies.
type Process struct {
	Name string
	Log  string // the file that stdout and stderr go to; a restart appends

	before int // bytes of the log that were there before
	cmd    *exec.Cmd
	ended  chan struct{} // closed once it has been waited for
	state  *os.ProcessState
}

// Options say what to start.
type Options struct {
	Name string // of the log file, too
	Path string // the program
	Args []string
	Env  []string // added to Environment()
	Dir  string   // "" = the starter's
	Logs string   // the folder of the log file
}

// Start starts a program.
func Start(o Options) (*Process, error) {
	p := &Process{Name: o.Name, Log: filepath.Join(o.Logs, o.Name+".log"), ended: make(chan struct{})}
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", o.Name, err)
	}
	defer log.Close() // the program has its own copy
	if info, err := log.Stat(); err == nil {
		p.before = int(info.Size())
	}
	p.cmd = exec.Command(o.Path, o.Args...)
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.Dir = log, log, o.Dir
	p.cmd.Env = append(Environment(), o.Env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", o.Name, err)
	}
	go p.wait()
	return p, nil
}

// wait ends with the process.
func (p *Process) wait() {
	var exit *exec.ExitError
	if err := p.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		fmt.Fprintf(os.Stderr, "wait for %s: %v\n", p.Name, err)
	}
	p.state = p.cmd.ProcessState
	close(p.ended)
}

// Environment is the starter's without the variables that configure StellMap.
func Environment() []string {
	var kept []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "STELLMAP_") {
			kept = append(kept, v)
		}
	}
	return kept
}

// PID is the process's id and its group's.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Ended is closed when the process has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Running tells whether the process has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// ExitCode is that of a process that has ended: -1 after a signal.
func (p *Process) ExitCode() int {
	<-p.ended
	return p.state.ExitCode()
}

// Signal sends a signal to the process's group. One that has ended gets none.
func (p *Process) Signal(s syscall.Signal) error {
	if !p.Running() {
		return nil
	}
	if err := syscall.Kill(-p.PID(), s); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("send %v to %s: %w", s, p.Name, err)
	}
	return nil
}

// Kill ends the group with SIGKILL and waits for the end.
func (p *Process) Kill() error {
	if err := p.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-p.ended
	return nil
}

// Stop asks the group to end, waits so long and then kills it, which is an error.
func (p *Process) Stop(patience time.Duration) error {
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-p.ended:
		return nil
	case <-timer.C:
		return errors.Join(fmt.Errorf("%s did not end within %v of SIGTERM", p.Name, patience), p.Kill())
	}
}

// Output is what the process has printed so far.
func (p *Process) Output() string {
	b, err := os.ReadFile(p.Log)
	if err != nil {
		return fmt.Sprintf("(%v)", err)
	}
	return string(b[min(p.before, len(b)):])
}

// Tail is the last lines of its output, for messages.
func (p *Process) Tail(lines int) string {
	all := bytes.Split(bytes.TrimRight([]byte(p.Output()), "\n"), []byte("\n"))
	return string(bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
}

// Clashed tells whether a process has ended because another one had its port.
func (p *Process) Clashed() bool {
	return !p.Running() && strings.Contains(p.Output(), "address already in use")
}

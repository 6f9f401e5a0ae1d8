package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/stellmap/stellmap/internal/freeport"
	"github.com/stellmap/stellmap/internal/process"
)

// What is registered, and the host name under which Envoy routes to it.
const (
	namespace = "default"
	service   = "orders"
	host      = service + "." + namespace
)

const (
	startTries    = 3                     // with new ports, when somebody was quicker
	readyTime     = 15 * time.Second      // for one process to be up
	stopTime      = 5 * time.Second       // for one process to end when asked
	upstreamDelay = 10 * time.Millisecond // so that requests are in flight when it is killed
)

// scene is everything that is started, and where.
type scene struct {
	work string // folder of this run: logs, data, demo.json
	bin  string // folder of the binaries; "" until they are built

	daemon, ctl, envoy string // paths of programs
	lock               *os.File
	ports              map[string]int              // by name, with the suffix of the region
	links              map[string]*process.Link    // on which a region follows the other, by its name
	processes          map[string]*process.Process // the living and the dead, by name
	renewals           missed
	stops              []func() // renewals and load
	client             *http.Client
}

// prepare builds the binaries, finds Envoy and empties the work folder.
func (s *scene) prepare(ctx context.Context, r *report) (err error) {
	if err := s.emptyWork(); err != nil {
		return err
	}
	if s.bin == "" {
		begin := time.Now()
		r.saying("==> building stellmapd, stellmapctl into bin/")
		if s.bin, err = build(ctx); err != nil {
			return err
		}
		r.saying("    %s", ms(time.Since(begin)))
	}
	s.daemon, s.ctl = filepath.Join(s.bin, "stellmapd"), filepath.Join(s.bin, "stellmapctl")
	if s.envoy, err = findEnvoy(ctx); err != nil {
		return err
	}
	r.Envoy = s.envoy
	return nil
}

// emptyWork makes the work folder fresh. It belongs to one run at a time.
func (s *scene) emptyWork() (err error) {
	if s.work, err = filepath.Abs(s.work); err != nil {
		return fmt.Errorf("work folder: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(s.work), 0o755); err != nil {
		return fmt.Errorf("work folder: %w", err)
	}
	if s.lock, err = os.OpenFile(s.work+".lock", os.O_CREATE|os.O_RDWR, 0o644); err != nil {
		return fmt.Errorf("work folder: %w", err)
	}
	if err := syscall.Flock(int(s.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("another run uses %s: %w", s.work, err)
	}
	if err := os.RemoveAll(s.work); err != nil {
		return fmt.Errorf("empty the work folder: %w", err)
	}
	return os.MkdirAll(s.work, 0o755)
}

// build builds both binaries into bin/ of the repository.
func build(ctx context.Context) (dir string, err error) {
	if dir, err = filepath.Abs("bin"); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", dir+"/", "./cmd/...")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return dir, nil
}

// findEnvoy asks scripts/envoy, which fetches one if need be and says so.
func findEnvoy(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, "scripts/envoy")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("find an Envoy: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// start chooses ports and starts the daemon and the upstreams, with other
// ports when somebody took one of them in between.
func (s *scene) start(ctx context.Context, r *report) error {
	r.begin = time.Now()
	s.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	var clash error
	for range startTries {
		if err := s.choosePorts(); err != nil {
			return err
		}
		r.Ports = s.ports
		clash = s.startAll(ctx)
		if clash == nil {
			s.announce(r)
			return nil
		}
		if !s.clashed() {
			return clash
		}
		if err := s.end(); err != nil {
			return err
		}
	}
	return fmt.Errorf("ports taken %d times: %w", startTries, clash)
}

func (s *scene) choosePorts() error {
	names := portNames()
	free, err := freeport.Find(len(names))
	if err != nil {
		return err
	}
	s.ports = make(map[string]int)
	for i, name := range names {
		s.ports[name] = free[i]
	}
	return nil
}

func (s *scene) startAll(ctx context.Context) error {
	s.processes = make(map[string]*process.Process)
	if err := s.openLinks(); err != nil {
		return err
	}
	for _, at := range sites {
		if err := s.writeConfig(at); err != nil {
			return err
		}
		if err := s.startDaemon(ctx, at); err != nil {
			return err
		}
		for _, name := range at.upstreams {
			if err := s.startUpstream(ctx, name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *scene) clashed() bool {
	for _, p := range s.processes {
		if p.Clashed() {
			return true
		}
	}
	return false
}

func (s *scene) announce(r *report) {
	r.saying("==> started 2 regions of 1 stellmapd each, and 5 upstreams; 127.0.0.1 only; logs and data in %s", s.work)
	for _, at := range sites {
		r.saying("    %-11s HTTP %d   xDS %d   peers %d   admin %d", at.daemon(), s.port(at, "http"), s.port(at, "xds"), s.port(at, "grpc"), s.port(at, "admin"))
		upstreams := ""
		for _, name := range at.upstreams {
			upstreams += fmt.Sprintf("   %s %d", name, s.ports[name])
		}
		r.saying("    upstreams%s", upstreams)
		r.saying("    %-11s egress %d   admin %d", at.envoy(), s.port(at, "egress"), s.port(at, "envoy_admin"))
	}
	r.saying("    Envoy is %s\n", s.envoy)
}

// launch starts a program and waits until it is ready.
func (s *scene) launch(ctx context.Context, o process.Options, ready func() error) error {
	o.Logs, o.Dir = s.work, s.work
	p, err := process.Start(o)
	if err != nil {
		return err
	}
	s.processes[o.Name] = p
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	died := func() error {
		if !p.Running() {
			cancel(errors.New("it ended")) // no use in waiting on
			return fmt.Errorf("%s ended with exit code %d; its last words:\n%s", o.Name, p.ExitCode(), p.Tail(5))
		}
		return ready()
	}
	_, err = process.Within(ctx, readyTime, o.Name+" to be ready", died)
	return err
}

func (s *scene) startDaemon(ctx context.Context, at site) error {
	return s.launch(ctx, process.Options{Name: at.daemon(), Path: s.daemon, Args: []string{"--config", s.configPath(at)}},
		func() error { return s.isOK(ctx, s.server(at)+"/readyz") })
}

func (s *scene) startUpstream(ctx context.Context, name string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", s.ports[name])
	args := []string{"upstream", "--name", name, "--address", address, "--delay", upstreamDelay.String()}
	return s.launch(ctx, process.Options{Name: name, Path: self, Args: args},
		func() error { return s.isOK(ctx, "http://"+address) })
}

// startEnvoy writes the bootstrap as a person would, has Envoy check it, and
// starts Envoy.
func (s *scene) startEnvoy(ctx context.Context, at site) error {
	bootstrap, err := s.stellmapctl(ctx, at, "bootstrap", "envoy", "--node", "web-"+at.region,
		"--egress-port", fmt.Sprint(s.port(at, "egress")), "--admin-port", fmt.Sprint(s.port(at, "envoy_admin")))
	if err != nil {
		return err
	}
	path := filepath.Join(s.work, at.envoy()+".yaml")
	if err := os.WriteFile(path, bootstrap, 0o644); err != nil {
		return fmt.Errorf("write %s.yaml: %w", at.envoy(), err)
	}
	if out, err := exec.CommandContext(ctx, s.envoy, "--mode", "validate", "-c", path).CombinedOutput(); err != nil {
		return fmt.Errorf("envoy --mode validate: %w\n%s", err, out)
	}
	args := []string{"-c", path, "--log-level", "warning", "--concurrency", "2", "--disable-hot-restart"}
	return s.launch(ctx, process.Options{Name: at.envoy(), Path: s.envoy, Args: args},
		func() error { return s.admin(at).Ready(ctx) })
}

// stellmapctl runs the operator's command line against a region.
func (s *scene) stellmapctl(ctx context.Context, at site, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, s.ctl, append([]string{"--server", s.server(at)}, args...)...)
	cmd.Env = process.Environment()
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("stellmapctl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}

// end ends everything that was started, the youngest first.
func (s *scene) end() error {
	for _, stop := range slices.Backward(s.stops) {
		stop()
	}
	s.stops = nil
	if s.client != nil {
		s.client.CloseIdleConnections()
	}
	var errs []error
	for _, at := range slices.Backward(sites) {
		names := append([]string{at.daemon()}, at.upstreams...)
		for _, name := range slices.Backward(append(names, at.envoy())) {
			if p := s.processes[name]; p != nil {
				errs = append(errs, p.Stop(stopTime))
			}
		}
	}
	for _, l := range s.links {
		errs = append(errs, l.Close())
	}
	s.links = nil
	return errors.Join(errs...)
}

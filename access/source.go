package access

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// reloadEvery is how often the files are read. What they say is in force one such time
// later at the latest, on open connections, too.
const reloadEvery = time.Second

// refusalsSaidEvery bounds the log: a stranger can knock as often as it likes. All are
// counted.
const refusalsSaidEvery = time.Second

// troubleSaidEvery is how often trouble with the files that lasts is logged.
const troubleSaidEvery = time.Minute

// Config is what a Source needs.
type Config struct {
	Files Files
	// Workload is the address of a SPIFFE Workload API, unix:///PATH, which has what else
	// the files have; but for the revocation list. "" = the files have it.
	Workload string
	// Self says whether the member's own certificate is the right one. Nil = any is.
	Self func(Identity) error
	// Refused is told of certificates that let nobody in. Nil = nobody is.
	Refused    func(port, from string, because error)
	Now        func() time.Time      // nil = time.Now
	Logger     *slog.Logger          // nil = none
	Registerer prometheus.Registerer // nil = none
}

// Source is what all listeners and connections of a member go by.
type Source struct {
	config  Config
	origin  origin
	agent   *agent // the origin, if that is one; else nil
	log     *slog.Logger
	metrics *metrics
	every   time.Duration // reloadEvery, or less in tests
	current atomic.Pointer[material]

	// Open's, then Run's alone.
	last     *contents // as read, good or not
	troubled bool      // they could not be used, or not all: they may be good later
	told     time.Time // when that was last logged

	said atomic.Int64 // when a refusal was last logged

	mu   sync.Mutex // guards what follows
	open map[*connection]struct{}
}

// Open reads the files, or asks the agent. What is wrong with that at the start is an error.
func Open(c Config) (*Source, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Source{config: c, origin: c.Files, log: c.Logger, metrics: newMetrics(), every: reloadEvery, open: make(map[*connection]struct{})}
	if err := s.metrics.register(c.Registerer); err != nil {
		return nil, err
	}
	if c.Workload != "" {
		agent, err := askAgent(c, s.log, s.metrics)
		if err != nil {
			return nil, err
		}
		s.agent, s.origin = agent, agent
		s.config.Files.Cert, s.config.Files.Key, s.config.Files.CA = c.Workload, c.Workload, c.Workload // as errors call them
	}
	_, _, err := s.reload()
	return s, err
}

// Self is who this member is.
func (s *Source) Self() Identity { return s.current.Load().self }

// Run reads the files again and again until ctx ends. A file that cannot be used leaves
// what was there before in force.
func (s *Source) Run(ctx context.Context) error {
	if s.agent == nil {
		again(ctx, s.every, s.look)
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	heard := make(chan error, 1)
	go func() {
		defer cancel() // that it does not hear any more is the end of Run
		heard <- s.agent.watch(ctx)
	}()
	again(ctx, s.every, s.look)
	cancel()
	return <-heard
}

// again does something every so often until ctx ends.
func again(ctx context.Context, every time.Duration, do func()) {
	ticks := time.NewTicker(every)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
			do()
		}
	}
}

// look is one round of Run.
func (s *Source) look() {
	fresh, changed, err := s.reload()
	cut := 0
	if changed {
		cut = s.cutOff()
	}
	if err != nil {
		s.complain(fresh, changed, cut, err)
	} else if changed {
		s.metrics.reloads.WithLabelValues("done").Inc()
		m := s.current.Load()
		s.log.Info("certificates read anew", "identity", m.self.String(), "not_after", m.certificate.Leaf.NotAfter, "cut", cut)
	}
}

// complain tells of files that cannot be used: at once when they are new, and again and
// again as long as they are there. They are counted once.
func (s *Source) complain(fresh, changed bool, cut int, err error) {
	now := s.config.Now()
	if fresh {
		s.metrics.reloads.WithLabelValues("failed").Inc()
	} else if !changed && now.Sub(s.told) < troubleSaidEvery {
		return
	}
	s.told = now
	if changed {
		s.log.Error("the certificate of before stays in force, the one in the files cannot be used; the authorities and revocations there are in force", "error", err, "cut", cut)
		return
	}
	s.log.Error("what was in force stays, what is in the files now cannot be used", "error", err)
}

// reload puts what is in the files in force, as far as it can be used. Files that were
// tried before are tried again only if that failed: a certificate that was not valid yet
// is one day. fresh says that they are others than the last time, changed that something
// else is in force.
func (s *Source) reload() (fresh, changed bool, err error) {
	c := s.origin.read()
	fresh = !s.last.equal(c)
	if !fresh && !s.troubled {
		return false, false, nil
	}
	before := s.current.Load()
	m, err := s.config.Files.parse(c, before, s.config.Self, s.config.Now())
	s.last, s.troubled = c, err != nil
	s.metrics.trouble(s.troubled)
	if m == nil || err != nil && m.trust == before.trust {
		return fresh, false, err
	}
	s.current.Store(m)
	s.metrics.show(m)
	return fresh, true, err
}

// cutOff closes the connections of those who would not be let in now.
func (s *Source) cutOff() (cut int) {
	s.mu.Lock()
	all := slices.Collect(maps.Keys(s.open))
	s.mu.Unlock()
	for _, c := range all { // without the lock: each is some signatures to look at
		err := s.stands(c)
		if err == nil {
			continue
		}
		cut++
		s.metrics.cut.WithLabelValues(c.port).Inc()
		s.log.Warn("connection cut", "port", c.port, "identity", c.who.Load().String(), "because", err)
		c.Close() // the other side learns of it, there is nothing else to save
	}
	return cut
}

// stands says whether what was accepted would be accepted now. A certificate that has run
// out meanwhile was good when the connection began.
func (s *Source) stands(c *connection) error {
	return s.current.Load().verify(c.chain, c.usage, c.since)
}

// admit lets a connection in or says why not. It is entered before it is looked at: so
// either this sees what a reload has brought, or the reload sees the connection.
func (s *Source) admit(c *connection, chain []*x509.Certificate, allowed func(Identity) error) error {
	id, err := s.identify(chain, c.usage)
	if err == nil {
		err = allowed(id)
	}
	if err == nil {
		c.chain, c.since = chain, s.config.Now()
		c.who.Store(&id)
		s.enter(c)
		if err = s.stands(c); err != nil {
			s.leave(c)
		}
	}
	if err != nil {
		s.refuse(c, err)
	}
	return err
}

func (s *Source) identify(chain []*x509.Certificate, usage x509.ExtKeyUsage) (Identity, error) {
	m := s.current.Load()
	if err := m.verify(chain, usage, s.config.Now()); err != nil {
		return Identity{}, err
	}
	id, err := IdentityOf(chain[0])
	if err == nil && id.TrustDomain != m.self.TrustDomain {
		err = fmt.Errorf("%w of this mesh: %s is not of the trust domain %s", ErrIdentity, id, m.self.TrustDomain)
	}
	return id, err
}

func (s *Source) refuse(c *connection, err error) {
	s.metrics.refused.WithLabelValues(c.port).Inc()
	if s.config.Refused != nil {
		s.config.Refused(c.port, c.RemoteAddr().String(), err)
	}
	now, last := s.config.Now().UnixNano(), s.said.Load()
	if now-last >= int64(refusalsSaidEvery) && s.said.CompareAndSwap(last, now) {
		s.log.Warn("certificate refused", "port", c.port, "from", c.RemoteAddr(), "because", err)
	}
}

func (s *Source) enter(c *connection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[c] = struct{}{}
	s.metrics.open.WithLabelValues(c.port).Inc()
}

func (s *Source) leave(c *connection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, in := s.open[c]; in {
		delete(s.open, c)
		s.metrics.open.WithLabelValues(c.port).Dec()
	}
}

// errNobody is of a connection whose other side brought no certificate where one is needed.
var errNobody = errors.New("no certificate was brought")

// serve are the settings of one connection that came in.
func (s *Source) serve(d Door, c *connection) *tls.Config {
	m := s.current.Load()
	config := &tls.Config{
		Certificates: []tls.Certificate{m.certificate},
		ClientCAs:    m.roots, // tells clients which of their certificates is meant
		ClientAuth:   tls.RequireAnyClientCert,
		MinVersion:   d.minVersion(),
		NextProtos:   d.protocols,
		// A resumed session would bring no certificate to be looked at.
		SessionTicketsDisabled: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) == 0 && d.Anonymous {
				return nil
			}
			if len(state.PeerCertificates) == 0 {
				return errNobody
			}
			return s.admit(c, state.PeerCertificates, d.allows)
		},
	}
	if d.Anonymous {
		config.ClientAuth = tls.RequestClientCert
	}
	return config
}

// ask are the settings of one connection that goes out, to somebody whom expected takes.
func (s *Source) ask(c *connection, expected func(Identity) error) *tls.Config {
	return &tls.Config{
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &s.current.Load().certificate, nil
		},
		MinVersion: tls.VersionTLS13,
		// Members are known by their identity, not by the name of a host, which is why the
		// verification is all ours.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) == 0 {
				return errNobody
			}
			return s.admit(c, state.PeerCertificates, expected)
		},
	}
}

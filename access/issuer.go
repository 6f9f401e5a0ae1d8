package access

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// IssuerConfig is what an Issuer needs. Issuer, Audience, SubjectClaim and KeysFile are not "".
type IssuerConfig struct {
	Issuer       string // as JWTs say it in iss
	Audience     string // as they say it in aud: this mesh
	SubjectClaim string // what they name somebody in
	KeysFile     string // a JWK set: the keys by which he signs

	Now        func() time.Time      // nil = time.Now
	Logger     *slog.Logger          // nil = none
	Registerer prometheus.Registerer // nil = none
}

// An Issuer is who vouches, by JWTs that he signs, for those who have neither a certificate
// nor a token of ours. What they may is written down here, and nothing that a JWT says of
// roles or scopes counts.
type Issuer struct {
	config  IssuerConfig
	every   time.Duration // reloadEvery, or less in tests
	metrics issuerMetrics
	keys    atomic.Pointer[jwtKeys]

	// OpenIssuer's, then Run's alone.
	last content   // the file as it was read, good or not
	bad  error     // why it cannot be used; nil = it can
	told time.Time // when that was last logged

	said atomic.Int64 // when a refusal was last logged
}

type issuerMetrics struct {
	keys, unusable prometheus.Gauge
	refused        prometheus.Counter
}

// OpenIssuer reads the keys. Keys that cannot be used are an error at the start.
func OpenIssuer(c IssuerConfig) (*Issuer, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	i := &Issuer{config: c, every: reloadEvery, metrics: issuerMetrics{
		keys:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "stellmap_access_jwt_keys", Help: "Keys by which JWTs are verified."}),
		unusable: prometheus.NewGauge(prometheus.GaugeOpts{Name: "stellmap_access_jwt_keys_unusable", Help: "1 while the keys file cannot be used and the keys of before stay in force, else 0."}),
		refused:  prometheus.NewCounter(prometheus.CounterOpts{Name: "stellmap_access_jwt_refused_total", Help: "JWTs that made nobody somebody; the log says why of one a second."}),
	}}
	if c.Registerer != nil {
		for _, one := range []prometheus.Collector{i.metrics.keys, i.metrics.unusable, i.metrics.refused} {
			if err := c.Registerer.Register(one); err != nil {
				return nil, fmt.Errorf("access: register a metric: %w", err)
			}
		}
	}
	i.reload()
	return i, i.bad
}

// Run reads the keys again and again until ctx ends. A file that cannot be used leaves
// the keys of before in force.
func (i *Issuer) Run(ctx context.Context) error {
	again(ctx, i.every, i.look)
	return nil
}

// look is one round of Run.
func (i *Issuer) look() {
	fresh := i.reload()
	switch now := i.config.Now(); {
	case i.bad != nil && (fresh || now.Sub(i.told) >= troubleSaidEvery):
		i.told = now
		i.config.Logger.Error("the keys for JWTs that were in force stay, what is in the file now cannot be used", "error", i.bad)
	case i.bad == nil && fresh:
		i.config.Logger.Info("keys for JWTs read anew", "keys", len(i.keys.Load().of))
	}
}

// reload puts the keys of the file in force, if it is another than the last time and can be used.
func (i *Issuer) reload() (fresh bool) {
	c := readContent("keys for JWTs", i.config.KeysFile, jwksBytesMax)
	if fresh = i.keys.Load() == nil || !c.equal(i.last); !fresh {
		return false
	}
	i.last = c
	keys, err := c.parseJWKS()
	if err != nil {
		i.bad = fmt.Errorf("%s: %w", i.config.KeysFile, err)
		i.metrics.unusable.Set(1)
		return true
	}
	i.bad = nil
	i.keys.Store(keys)
	i.metrics.unusable.Set(0)
	i.metrics.keys.Set(float64(len(keys.of)))
	return true
}

// refuse tells of a JWT that was not good: never what it is.
func (i *Issuer) refuse(err error) {
	i.metrics.refused.Inc()
	now, last := i.config.Now().UnixNano(), i.said.Load()
	if now-last >= int64(refusalsSaidEvery) && i.said.CompareAndSwap(last, now) {
		i.config.Logger.Warn("a JWT was refused", "because", err)
	}
}

package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// The bounds of a lease, as the server has them.
const (
	ttlDefault = 30 * time.Second
	ttlMin     = time.Second
	ttlMax     = 7 * 24 * time.Hour
)

// registerFlags is what register's command line says.
type registerFlags struct {
	ref                  instanceRef
	addrs                []string
	protocol             string
	weight               uint16
	group, zone, version string
	labels, metadata     []string
	ttl                  time.Duration
	checks               []string
	checkEvery           time.Duration
	keep                 bool
	by                   holder
}

func (c *ctl) registerCommand() *cobra.Command {
	var f registerFlags
	cmd := &cobra.Command{
		Use:   "register SERVICE --id ID --addr HOST:PORT",
		Short: "Put an instance into the registry, and keep it there with --keep",
		Long: `register puts an instance of a service into the registry, or overwrites it.
Nobody is sent to it any more once its lease has run out. --keep stays and
renews the lease, three times in each TTL, until Ctrl-C or SIGTERM, and then
deregisters the instance; should the registry have lost it meanwhile, it is
registered again.

The answer has a lease token. Whoever renews, overwrites, drains or deregisters
the instance from then on presents it (--lease-token), until its lease has run
out; --keep makes one and does so by itself. An operator needs none with --force.

--addr is HOST:PORT, or NAME=PROTOCOL://HOST:PORT[/PATH] for an endpoint with a
name and protocol of its own, and may be given several times. The first is the
primary one. HOST should be an IP address: proxies take nothing else.

--check has the cluster try an endpoint, the first unless it names one: http/PATH,
https/PATH, tcp, tls, grpc, grpc/SERVICE, grpcs, redis or mysql, with a name before
a = if there are several of a kind. See docs/health.md; over HTTP there is more.`,
		Example: `  stellmapctl register orders --id orders-1 --addr 127.0.0.1:9001 --ttl 10s --keep
  stellmapctl register orders --id orders-1 --addr http=http://10.0.0.7:8080 --addr rpc=grpc://10.0.0.7:9090
  stellmapctl register orders --id o-1 --addr 10.0.0.7:8080 --addr db=tcp://10.0.0.7:6379 --check http/healthz --check redis@db
  stellmapctl register orders -n prod --id o-1 --addr '[2001:db8::7]:80' --zone a --version 1.4.2 --label tier=gold`,
		Args: oneService,
		RunE: func(cmd *cobra.Command, args []string) error {
			f.ref.service = args[0]
			body, err := f.registration()
			if err != nil {
				return err
			}
			if f.keep {
				return c.keep(cmd.Context(), f.ref, f.by, body)
			}
			return c.registerOnce(cmd.Context(), f.ref, f.by, body)
		},
	}
	f.add(cmd.Flags())
	return cmd
}

func (f *registerFlags) add(flags *pflag.FlagSet) {
	namespaceFlag(flags, &f.ref.namespace)
	flags.StringVar(&f.ref.id, "id", "", "the instance's id, its own within the service")
	flags.StringArrayVar(&f.addrs, "addr", nil, "an endpoint: HOST:PORT or NAME=PROTOCOL://HOST:PORT[/PATH]; repeatable")
	flags.StringVar(&f.protocol, "protocol", "http", "the protocol of an --addr that names none: http, h2c, grpc, https, tcp, tls")
	flags.Uint16Var(&f.weight, "weight", 0, "the share of each endpoint beside others, 1 to 65535 (default 100)")
	flags.StringVar(&f.group, "group", "", "a group within the namespace")
	flags.StringVar(&f.zone, "zone", "", "the zone that it stands in")
	flags.StringVar(&f.version, "version", "", "the version that it runs")
	flags.StringArrayVar(&f.labels, "label", nil, "a label key=value, which queries can ask for; repeatable")
	flags.StringArrayVar(&f.metadata, "metadata", nil, "a metadata key=value; repeatable")
	flags.DurationVar(&f.ttl, "ttl", ttlDefault, "how long the lease holds without a renewal, in whole seconds, 1s to 168h")
	flags.StringArrayVar(&f.checks, "check", nil, "a check: [NAME=]KIND[@ENDPOINT][/PATH], such as http/healthz; repeatable")
	flags.DurationVar(&f.checkEvery, "check-interval", 0, "the time from one try of a check to the next, in whole seconds, 1s to 1h (default 5s)")
	holderFlags(flags, &f.by)
	flags.BoolVar(&f.keep, "keep", false, "stay, renew the lease, deregister at Ctrl-C")
}

// registration is what the flags ask for, or what is wrong with them.
func (f *registerFlags) registration() (registration, error) {
	if err := f.ref.check(); err != nil {
		return registration{}, err
	}
	if f.ttl < ttlMin || f.ttl > ttlMax || f.ttl%time.Second != 0 {
		return registration{}, usagef("--ttl: %v is not a time in whole seconds from %v to %v, such as 30s", f.ttl, ttlMin, ttlMax)
	}
	r := registration{Group: f.group, Zone: f.zone, Version: f.version, LeaseTTLSeconds: int64(f.ttl / time.Second)}
	if len(f.addrs) == 0 {
		return registration{}, usagef("--addr: is missing, such as --addr 127.0.0.1:9001")
	}
	for _, text := range f.addrs {
		e, err := parseEndpoint(text, f.protocol, int(f.weight))
		if err != nil {
			return registration{}, err
		}
		r.Endpoints = append(r.Endpoints, e)
	}
	if f.checkEvery < 0 || f.checkEvery > time.Hour || f.checkEvery%time.Second != 0 {
		return registration{}, usagef("--check-interval: %v is not a time in whole seconds from 1s to 1h", f.checkEvery)
	}
	for _, text := range f.checks {
		check, err := parseCheck(text, f.checkEvery)
		if err != nil {
			return registration{}, err
		}
		r.Checks = append(r.Checks, check)
	}
	var err error
	if r.Labels, err = parsePairs("label", f.labels); err != nil {
		return registration{}, err
	}
	r.Metadata, err = parsePairs("metadata", f.metadata)
	return r, err
}

// holderFlags are what shows that an instance is the caller's.
func holderFlags(flags *pflag.FlagSet, by *holder) {
	flags.StringVar(&by.token, "lease-token", "", "the instance's lease token, as register printed it; for a new instance the one that it shall have")
	flags.BoolVar(&by.force, "force", false, "do it whoever holds the instance; takes the admin token as --token")
}

func (c *ctl) registerOnce(ctx context.Context, ref instanceRef, by holder, body registration) error {
	answer, err := c.register(ctx, ref, by, body)
	if err != nil {
		return err
	}
	lease := "lease " + seconds(body.LeaseTTLSeconds) + ", then it expires; --keep renews it"
	if answer.LeaseToken != "" {
		lease += "   lease token " + answer.LeaseToken
	}
	return c.show(registered(ref, answer, lease))
}

func (c *ctl) register(ctx context.Context, ref instanceRef, by holder, body registration) (written, error) {
	var answer written
	err := c.call(ctx, request{doing: "register " + ref.String(), method: http.MethodPut, path: ref.path(), body: body, by: by}, &answer)
	return answer, err
}

// registered tells a new instance from one that was there and says other things now.
func registered(ref instanceRef, answer written, lease string) view {
	word := "registered"
	if answer.Created != nil && answer.Changed != nil && !*answer.Created && *answer.Changed {
		word = "overwritten"
	}
	return view{
		whole: answer,
		names: []string{ref.short()},
		line:  fmt.Sprintf("%s %s   rev %d   %s", word, ref.short(), answer.Revision, lease),
	}
}

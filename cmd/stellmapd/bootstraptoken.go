package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/stellmap/stellmap/access"
	"github.com/stellmap/stellmap/registry"
)

// Where callers are asked who they are, somebody has to be the first who is let in. A
// member that founds a cluster writes a token into its data directory, which lets whoever
// can read it make the first access token, and nothing else. It is good at that member,
// for a day, and for as long as the cluster has never had an access token: then the file
// goes, at every founder. Members that join, were rebuilt or restored write none.

// bootstrapTime is how long a bootstrap token is good.
const bootstrapTime = 24 * time.Hour

// A bootstrapToken is one that is good, or was.
type bootstrapToken struct {
	path    string
	until   time.Time
	machine *registry.Machine
	now     func() time.Time
	log     *slog.Logger
}

// openBootstrap reads the bootstrap token, or makes one at the first start of a founder.
func (n *node) openBootstrap(machine *registry.Machine) error {
	founds := n.group.Recovery().Founded && len(n.config.Cluster.Join) == 0
	b, text, err := openBootstrapToken(filepath.Join(n.config.Node.DataDir, "bootstrap.token"), founds, machine, time.Now)
	if err != nil || b == nil {
		return err
	}
	b.log = n.logger
	n.bootstrap = b
	n.secrets = append(n.secrets, secret{digest: sha256.Sum256([]byte(text)), port: access.HTTP.Port, bearer: founder{b}, good: b.good, alone: true})
	return nil
}

// openBootstrapToken is nil when there is none.
func openBootstrapToken(path string, founds bool, machine *registry.Machine, now func() time.Time) (*bootstrapToken, string, error) {
	b := &bootstrapToken{path: path, machine: machine, now: now, log: slog.New(slog.DiscardHandler)}
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !founds:
		return nil, "", nil
	case errors.Is(err, fs.ErrNotExist):
		token, err := access.DrawBootstrap(rand.Reader)
		if err == nil {
			err = writeToken(path, token)
		}
		if err != nil {
			return nil, "", fmt.Errorf("make the bootstrap token: %w", err)
		}
		b.until = now().Add(bootstrapTime)
		return b, token, nil
	case err != nil:
		return nil, "", fmt.Errorf("read the bootstrap token: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if !access.IsBootstrap(token) {
		return nil, "", fmt.Errorf("read the bootstrap token: %s holds none that is whole; remove the file: admin.token makes access tokens, too, on the administration port", path)
	}
	written, err := os.Stat(path)
	if err != nil {
		return nil, "", fmt.Errorf("read the bootstrap token: %w", err)
	}
	b.until = written.ModTime().Add(bootstrapTime)
	return b, token, nil
}

// good says whether it still is.
func (b *bootstrapToken) good() bool { return !b.machine.AccessBegun() && b.now().Before(b.until) }

// run takes the file away when it is good for nothing any more.
func (b *bootstrapToken) run(ctx context.Context) error {
	if b == nil {
		return nil
	}
	over := time.NewTimer(b.until.Sub(b.now()))
	defer over.Stop()
	for {
		edition := b.machine.Edition() // before it is looked at: what changes meanwhile ends this one
		if !b.good() {
			b.remove()
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-over.C:
		case <-edition.Over():
		}
	}
}

func (b *bootstrapToken) remove() {
	if err := os.Remove(b.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		b.log.Error("the bootstrap token is good for nothing any more, and its file stays", "file", b.path, "error", err)
		return
	}
	b.log.Info("the bootstrap token is good for nothing any more, and its file is gone", "file", b.path, "used", b.machine.AccessBegun())
}

// A founder is whoever shows it.
type founder struct{ token *bootstrapToken }

func (founder) Who() string { return "bootstrap token" }

// Allows the one thing: to make an access token.
func (f founder) Allows(a registry.Ask) bool {
	return a == registry.Ask{Verb: registry.VerbRegister, Resource: registry.ResourceTokens} && f.token.good()
}
func (f founder) AllowsSome(a registry.Ask) bool { return f.Allows(a) }
func (founder) Stamp() string                    { return "bootstrap token" }

func (f founder) Held() registry.Rights {
	if !f.token.good() {
		return nil
	}
	return f
}

// Lacks says that the first token may be for anything.
func (founder) Lacks([]registry.NamedRole, *registry.Rule) string { return "" }

// Founds says that it is for the first token and no other.
func (founder) Founds() bool { return true }

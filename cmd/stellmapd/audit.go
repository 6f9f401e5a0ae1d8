package main

import (
	"context"
	"fmt"

	"github.com/stellmap/stellmap/access"
	"github.com/stellmap/stellmap/access/audit"
	"github.com/stellmap/stellmap/internal/version"
)

// AuditConfig is the [audit] table.
type AuditConfig struct {
	File     string `mapstructure:"file"`
	MaxBytes uint64 `mapstructure:"max_bytes"`
	Keep     uint64 `mapstructure:"keep"`
	Reads    string `mapstructure:"reads"`
	Required string `mapstructure:"required"`
}

// checkAudit: what is to be in the log, and whether it must be, is of no use without one.
func (l *loader) checkAudit(c Config) {
	for _, s := range settings {
		switch s.key {
		case "audit.reads", "audit.required", "audit.max_bytes", "audit.keep":
			if c.Audit.File == "" && l.origin(s) != "default" {
				l.add(l.origin(s), "%s: without audit.file there is no audit log", s.key)
			}
		}
	}
}

// openAudit opens the log of who did what; without audit.file there is none.
func (n *node) openAudit() (err error) {
	c := n.config.Audit
	if c.File == "" {
		return nil
	}
	n.audit, err = audit.Open(audit.Config{
		File: c.File, BytesMax: int64(c.MaxBytes), Keep: int(c.Keep), Reads: c.Reads == on, Required: c.Required == on,
		Note: fmt.Sprintf("node %d of cluster %d, region %s, version %s", n.config.Node.ID, n.config.Node.ClusterID, n.config.Node.Region, version.Number),
		Who:  whoProved, Logger: n.logger, Registerer: n.metrics,
	})
	if err != nil {
		return fmt.Errorf("audit.file: %w", err)
	}
	n.opened = append(n.opened, n.audit)
	return nil
}

// whoProved is who has proved to be the caller, "" for nobody.
func whoProved(ctx context.Context) string {
	if who, ok := access.FromContext(ctx); ok {
		return who.String()
	}
	return ""
}

// turnedAway has the log tell of a certificate that let nobody in.
func (n *node) turnedAway(port, from string, why error) {
	n.audit.Record(context.Background(), audit.Entry{Port: port, From: from, Does: "tls.handshake", Denied: true, Code: why.Error()})
}

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/stellmap/stellmap/access"
	"github.com/stellmap/stellmap/access/authority"
)

// How long development certificates are good: short, so that nobody comes to rely on one.
const (
	caValidityDefault   = 30 * 24 * time.Hour
	caValidityMax       = 90 * 24 * time.Hour
	certValidityDefault = 7 * 24 * time.Hour
)

// The files of an authority, in its folder.
const (
	caCertFile = "ca.pem"
	caKeyFile  = "ca-key.pem"
	crlFile    = "crl.pem"
)

func (c *ctl) certCommand() *cobra.Command {
	cert := c.group(&cobra.Command{
		Use:   "cert",
		Short: "Make certificates for DEVELOPMENT",
		Long: `cert makes an authority and certificates for development and tests. They say so
in every name. It asks no server.

This is no authority to run a mesh on: its key lies in a file, nobody is asked who
they are, and nothing is renewed by itself. For production use SPIRE, cert-manager,
Vault or what you have, with the same URIs; docs/security.md has them.`,
		Example: `  stellmapctl cert ca --dir tls
  stellmapctl cert issue --dir tls --uri spiffe://dev.example/region/local/peer/1 --host 127.0.0.1 --name n1
  stellmapctl cert issue --dir tls --uri spiffe://dev.example/operator/lin --name lin
  stellmapctl cert revoke --dir tls tls/lin.pem`,
	})
	cert.AddCommand(c.certCACommand(), c.certIssueCommand(), c.certRevokeCommand())
	return cert
}

func (c *ctl) certCACommand() *cobra.Command {
	var dir string
	var validity time.Duration
	cmd := &cobra.Command{
		Use:   "ca --dir DIR",
		Short: "Make a development authority",
		Long:  "ca makes a development authority: " + caCertFile + " and, for its owner only, " + caKeyFile + ". One that is there already is left alone.",
		Example: `  stellmapctl cert ca --dir tls
  stellmapctl cert ca --dir tls --validity 24h`,
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			if validity < time.Minute || validity > caValidityMax {
				return usagef("--validity: %v is not from 1m to %v", validity, caValidityMax)
			}
			return c.certCA(dir, validity)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", ".", "the authority's folder")
	cmd.Flags().DurationVar(&validity, "validity", caValidityDefault, "how long it is good")
	return cmd
}

func (c *ctl) certCA(dir string, validity time.Duration) error {
	a, err := authority.New(c.now(), validity)
	if err != nil {
		return fmt.Errorf("make an authority: %w", err)
	}
	cert, key, err := a.PEM()
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err == nil {
		err = writePair(filepath.Join(dir, caCertFile), filepath.Join(dir, caKeyFile), cert, key, false)
	}
	if err != nil {
		return fmt.Errorf("make an authority: %w", err)
	}
	_, err = fmt.Fprintf(c.stdout, "made %s, a DEVELOPMENT authority until %s; its key is in %s\n",
		filepath.Join(dir, caCertFile), a.Certificate.NotAfter.UTC().Format(time.RFC3339), filepath.Join(dir, caKeyFile))
	return err
}

// issuing is what cert issue is asked for.
type issuing struct {
	dir, uri, name string
	hosts          []string
	validity       time.Duration
	overwrite      bool
}

func (c *ctl) certIssueCommand() *cobra.Command {
	var i issuing
	cmd := &cobra.Command{
		Use:   "issue --dir DIR --uri URI --name NAME",
		Short: "Make a development certificate",
		Long: `issue makes a key and its certificate, signed by the authority in --dir:
NAME.pem and, for its owner only, NAME-key.pem, in the same folder.

The URI says who its holder is:
  spiffe://TRUST-DOMAIN/region/REGION/peer/NODE-ID        a member; give its --host, too
  spiffe://TRUST-DOMAIN/replicator/REGION                 who follows a region for another one
  spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/NAME              a workload or its proxy
  spiffe://TRUST-DOMAIN/operator/NAME                     a person`,
		Example: `  stellmapctl cert issue --dir tls --uri spiffe://dev.example/region/local/peer/1 --host localhost,127.0.0.1 --name n1
  stellmapctl cert issue --dir tls --uri spiffe://dev.example/ns/default/sa/orders --name orders --validity 1h
  stellmapctl cert issue --dir tls --uri spiffe://dev.example/ns/default/sa/orders --name orders --overwrite    the next one`,
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error { return c.certIssue(i) },
	}
	flags := cmd.Flags()
	flags.StringVar(&i.dir, "dir", ".", "the authority's folder")
	flags.StringVar(&i.uri, "uri", "", "who its holder is")
	flags.StringVar(&i.name, "name", "", "what its files begin with")
	flags.StringSliceVar(&i.hosts, "host", nil, "names and addresses at which a member is reached, with commas between")
	flags.DurationVar(&i.validity, "validity", certValidityDefault, "how long it is good, at most as long as the authority")
	flags.BoolVar(&i.overwrite, "overwrite", false, "put it in place of one that is there")
	return cmd
}

func (i issuing) check() (access.Identity, error) {
	id, err := access.ParseIdentity(i.uri)
	switch {
	case i.uri == "":
		return id, usagef("--uri: is missing, such as --uri spiffe://dev.example/operator/lin")
	case err != nil:
		return id, usagef("--uri: %w", err)
	case i.name == "" || i.name != filepath.Base(i.name) || !isName(i.name, ".-_"):
		return id, usagef("--name: %q is not the beginning of a file's name, such as n1", i.name)
	case i.name+".pem" == caCertFile || i.name+".pem" == caKeyFile || i.name+".pem" == crlFile:
		return id, usagef("--name: %q is a file of the authority", i.name)
	case i.validity < time.Minute:
		return id, usagef("--validity: %v is less than 1m", i.validity)
	case id.Role == access.RolePeer && len(i.hosts) == 0:
		return id, usagef("--host: is missing: clients know a member by the name or address at which they reach it")
	case id.Role != access.RolePeer && len(i.hosts) > 0:
		return id, usagef("--host: only a member takes connections, and this is the role %s", id.Role)
	}
	return id, nil
}

func (c *ctl) certIssue(i issuing) error {
	id, err := i.check()
	if err != nil {
		return err
	}
	a, err := loadAuthority(i.dir)
	if err != nil {
		return err
	}
	cert, key, err := a.Issue(authority.Request{URI: i.uri, Hosts: i.hosts, Serves: id.Role == access.RolePeer, Validity: i.validity}, c.now())
	if err != nil {
		return fmt.Errorf("issue a certificate: %w; --validity asks for less", err)
	}
	certTo, keyTo := filepath.Join(i.dir, i.name+".pem"), filepath.Join(i.dir, i.name+"-key.pem")
	if err := writePair(certTo, keyTo, cert, key, i.overwrite); err != nil {
		return fmt.Errorf("issue a certificate: %w", err)
	}
	_, err = fmt.Fprintf(c.stdout, "made %s for %s, for DEVELOPMENT, until %s; its key is in %s\n", certTo, id, c.now().Add(i.validity).UTC().Format(time.RFC3339), keyTo)
	return err
}

func (c *ctl) certRevokeCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "revoke --dir DIR CERTIFICATE",
		Short: "Put a development certificate into the revocation list",
		Long: `revoke puts a certificate into ` + crlFile + ` of the authority in --dir. Members whose
tls.crl_file it is cut its holder off within seconds.`,
		Example: `  stellmapctl cert revoke --dir tls tls/orders.pem`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("%s wants the file of one certificate", nameOf(cmd))
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error { return c.certRevoke(dir, args[0]) },
	}
	cmd.Flags().StringVar(&dir, "dir", ".", "the authority's folder")
	return cmd
}

func (c *ctl) certRevoke(dir, path string) error {
	a, err := loadAuthority(dir)
	if err != nil {
		return err
	}
	to := filepath.Join(dir, crlFile)
	old, err := os.ReadFile(to)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("revoke: %w", err)
	}
	cert, err := os.ReadFile(path)
	if err != nil {
		return usagef("%w", err)
	}
	list, err := a.Revoke(old, cert, c.now(), caValidityDefault)
	if err == nil {
		err = writeWhole(to, list, 0o644)
	}
	if err != nil {
		return fmt.Errorf("revoke %s: %w", path, err)
	}
	_, err = fmt.Fprintf(c.stdout, "revoked %s in %s\n", path, to)
	return err
}

func loadAuthority(dir string) (*authority.Authority, error) {
	cert, err := os.ReadFile(filepath.Join(dir, caCertFile))
	if err != nil {
		return nil, usagef("--dir: %w; stellmapctl cert ca makes an authority", err)
	}
	key, err := os.ReadFile(filepath.Join(dir, caKeyFile))
	if err != nil {
		return nil, usagef("--dir: %w", err)
	}
	a, err := authority.Load(cert, key)
	if err != nil {
		return nil, fmt.Errorf("the authority in %s: %w", dir, err)
	}
	return a, nil
}

// writePair writes a certificate and its key, which only the owner can read.
func writePair(certTo, keyTo string, cert, key []byte, overwrite bool) error {
	for _, path := range []string{certTo, keyTo} {
		if _, err := os.Lstat(path); err == nil && !overwrite {
			return fmt.Errorf("%s is there already; nothing was written", path)
		}
	}
	return errors.Join(writeWhole(keyTo, key, 0o600), writeWhole(certTo, cert, 0o644))
}

// writeWhole puts a file in its place when it is whole: a member may read it at any moment.
func writeWhole(path string, data []byte, mode os.FileMode) error {
	temp, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name()) // is not there any more when all went well
	_, err = temp.Write(data)
	if err == nil {
		err = temp.Chmod(mode)
	}
	if err = errors.Join(err, temp.Close()); err != nil {
		return err
	}
	return os.Rename(temp.Name(), path)
}

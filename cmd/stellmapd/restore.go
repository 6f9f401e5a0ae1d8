package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/stellmap/stellmap/consensus"
	"github.com/stellmap/stellmap/storage"
)

// restoration is one run of stellmapd restore.
type restoration struct {
	from        string
	incarnation string
	config      Config
	next        string // the command that starts what was restored
}

func (d *daemon) restoreCommand() *cobra.Command {
	var r restoration
	cmd := &cobra.Command{
		Use:   "restore --from FILE",
		Short: "Make a new cluster from a backup",
		Long: `restore makes the empty folder of --data-dir a member of a new cluster that
begins with the state in a backup, which stellmapctl snapshot save has written.
It starts nothing. The backup is read to its end before anything is written,
and a folder that holds anything is refused.

The new cluster has the members of the configuration, one by default, a new
incarnation, and revisions that the old one can not have reached. Dropped are
the old members' addresses and the remembered request ids; instances get a full
TTL from the first leader. Every member of the old cluster must be stopped for
good before the new one is started: the two do not talk, but both would serve.

A cluster of several members is restored on each of them, from the same file:
the first run makes the incarnation, the others are told it by --incarnation.`,
		Example: `  stellmapd restore --from orders.backup --data-dir ./stellmap-data
  stellmapd restore --from orders.backup --config n1.toml
  stellmapd restore --from orders.backup --config n2.toml --incarnation 6f1e…`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if r.from == "" {
				return usageError{errors.New("--from is missing: the file that stellmapctl snapshot save has written")}
			}
			var err error
			if r.config, err = d.settings(cmd); err != nil {
				return err
			}
			r.next = "stellmapd" + flagsOf(cmd)
			return d.restore(&r)
		},
	}
	cmd.Flags().StringVar(&r.from, "from", "", "the backup")
	cmd.Flags().StringVar(&r.incarnation, "incarnation", "", "the new cluster's, as the restore of its first member printed it (default: a new one)")
	return cmd
}

// flagsOf are the settings that the command line gave, to be given again.
func flagsOf(cmd *cobra.Command) string {
	var b strings.Builder
	cmd.InheritedFlags().VisitAll(func(f *pflag.Flag) {
		if !f.Changed {
			return
		}
		value := f.Value.String()
		if strings.ContainsAny(value, " \t\"'$\\") {
			value = "'" + strings.ReplaceAll(value, "'", `'\''`) + "'"
		}
		fmt.Fprintf(&b, " --%s %s", f.Name, value)
	})
	return b.String()
}

// restore does all that the command does but read its flags.
func (d *daemon) restore(r *restoration) (err error) {
	disk, dir := vfs.Default, r.config.Node.DataDir
	if err := mustBeEmpty(disk, dir); err != nil {
		return err
	}
	var services, instances int
	backup, err := storage.ReadBackup(disk, r.from, func(key, _ []byte) error {
		switch {
		case strings.HasPrefix(string(key), storage.ServicePrefix):
			services++
		case strings.HasPrefix(string(key), storage.InstancePrefix):
			instances++
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the backup: %w", err)
	}
	lock, err := storage.LockDir(disk, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if err := mustBeEmpty(disk, dir); err != nil { // nobody else comes in from now on
		return err
	}
	restored, err := r.run(disk)
	if err != nil {
		return fmt.Errorf("restore into %s: %w; what is there by now is of no use: empty it, and restore again", dir, err)
	}
	_, err = fmt.Fprint(d.stdout, r.report(backup, restored, services, instances))
	return err
}

// mustBeEmpty refuses a folder that holds anything, and says what.
func mustBeEmpty(disk vfs.FS, dir string) error {
	names, err := disk.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look into the data directory: %w", err)
	}
	names = slices.DeleteFunc(names, func(name string) bool { return name == "LOCK" || name == "lost+found" })
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	const shown = 5
	found := strings.Join(names[:min(len(names), shown)], ", ")
	if more := len(names) - shown; more > 0 {
		found += fmt.Sprintf(" and %d more", more)
	}
	whose := ""
	if id, ok, err := storage.LoadIdentity(disk, dir); err == nil && ok {
		whose = fmt.Sprintf(", the data of node %d of cluster %d", id.NodeID, id.ClusterID)
	}
	return fmt.Errorf("the data directory %s is not empty: it holds %s%s. Nothing was changed; restore into another one, or move away what is there", dir, found, whose)
}

// run fills the data directory.
func (r *restoration) run(disk vfs.FS) (restored consensus.Restored, err error) {
	meta, state, err := storage.OpenBackup(disk, r.from)
	if err != nil {
		return consensus.Restored{}, err
	}
	defer func() { err = errors.Join(err, state.Close()) }()
	return consensus.Restore(r.plan(disk, meta, state))
}

// plan is the making of a member of the new cluster from a state.
func (r *restoration) plan(disk vfs.FS, meta storage.SnapshotMeta, state io.Reader) consensus.Restoration {
	c := r.config
	return consensus.Restoration{
		Founding:     consensus.Founding{NodeID: c.Node.ID, ClusterID: c.Node.ClusterID, Members: c.members()},
		IdentityFile: identityFile(disk, c.Node.DataDir),
		Incarnation:  r.incarnation, Backup: meta, State: state,
		OpenEngine: func() (*storage.Engine, error) {
			return storage.OpenEngine(storage.EngineOptions{FS: disk, Dir: filepath.Join(c.Node.DataDir, "state")})
		},
		OpenLog: func(base storage.Position) (*storage.Log, error) {
			return storage.OpenLog(storage.LogOptions{FS: disk, Dir: filepath.Join(c.Node.DataDir, "wal"), Base: base, Applied: base.Index, Salt: rand.Uint64})
		},
	}
}

// report is what was done, and what comes next.
func (r *restoration) report(b storage.Backup, out consensus.Restored, services, instances int) string {
	c := r.config
	var text strings.Builder
	fmt.Fprintf(&text, "restored %s into %s\n", r.from, c.Node.DataDir)
	for _, row := range [][2]string{
		{"backup", fmt.Sprintf("cluster %d, incarnation %s, index %d of term %d, taken %s", b.ClusterID, cmp.Or(b.Incarnation, "(none yet)"), b.Index, b.Term, time.UnixMilli(b.Created).UTC().Format(time.RFC3339))},
		{"state", fmt.Sprintf("%d services, %d instances", services, instances)},
		{"now", fmt.Sprintf("node %d of %s, cluster %d, incarnation %s", c.Node.ID, c.memberIDs(), c.Node.ClusterID, out.Incarnation)},
		{"revisions", fmt.Sprintf("go on after %d", out.Base.Index)},
		{"dropped", fmt.Sprintf("%d addresses of old members, %d remembered request ids", out.Members, out.Requests)},
	} {
		fmt.Fprintf(&text, "  %-10s %s\n", row[0], row[1])
	}
	text.WriteString("Every member of the old cluster must be stopped for good before this one is started.\n")
	if len(c.Cluster.Members) > 1 && r.incarnation == "" {
		fmt.Fprintf(&text, "Next, at each other member: stellmapd restore --from FILE --incarnation %s with its own configuration\nThen: %s\n", out.Incarnation, r.next)
	} else {
		fmt.Fprintf(&text, "Next: %s\n", r.next)
	}
	return text.String()
}

// memberIDs are the founders' as a text.
func (c *Config) memberIDs() string {
	var ids []string
	for _, m := range c.Cluster.Members {
		ids = append(ids, strconv.FormatUint(m.ID, 10))
	}
	return strings.Join(ids, ", ")
}

// identityFile is where a data directory says whose it is.
func identityFile(disk vfs.FS, dir string) consensus.IdentityFile {
	return consensus.IdentityFile{
		Load:     func() (storage.Identity, bool, error) { return storage.LoadIdentity(disk, dir) },
		Save:     func(id storage.Identity) error { return storage.SaveIdentity(disk, dir, id) },
		Occupied: func() (bool, error) { return storage.HasLogOrState(disk, dir) },
	}
}

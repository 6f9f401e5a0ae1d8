package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/spf13/cobra"

	"github.com/stellmap/stellmap/consensus"
	"github.com/stellmap/stellmap/registry"
	"github.com/stellmap/stellmap/storage"
)

// recovery is one run of stellmapd recover.
type recovery struct {
	survivors []string // data directories
	yes       bool
	restoration
}

func (d *daemon) recoverCommand() *cobra.Command {
	var r recovery
	cmd := &cobra.Command{
		Use:   "recover --from-survivor DIR",
		Short: "Make a new cluster from what is left when a majority is lost for good",
		Long: `recover makes the empty folder of --data-dir a member of a new cluster that
begins with the state of a surviving member, when so many members are lost for
good that no majority is left. It starts nothing. Members that are only down, or
cut off, must be brought back instead: they have what recover may lose.

Give --from-survivor for every data directory that is left, each of a member that
is stopped: the one with the newest log is taken, and a write that a majority had
acknowledged is lost only if none of its members is among them. All of its log
counts, also what is not known to be committed. The directories are left as they
are; their members are refused by the new cluster and must not be started again.

What may be lost is printed, and then the cluster's id is asked for, unless --yes
is given. The new cluster has the members of the configuration, one by default, a
new incarnation, and revisions that the old one can not have reached. It grows by
members that join it.`,
		Example: `  stellmapd recover --from-survivor ./n1 --data-dir ./new
  stellmapd recover --from-survivor ./n1 --from-survivor ./n3 --config new.toml --yes`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(r.survivors) == 0 {
				return usageError{errors.New("--from-survivor is missing: the data directory of a member that is left")}
			}
			var err error
			if r.config, err = d.settings(cmd); err != nil {
				return err
			}
			r.next = "stellmapd" + flagsOf(cmd)
			return d.recover(cmd.Context(), cmd.InOrStdin(), &r)
		},
	}
	cmd.Flags().StringArrayVar(&r.survivors, "from-survivor", nil, "the data directory of a member that is left; may be given again")
	cmd.Flags().BoolVar(&r.yes, "yes", false, "do not ask")
	return cmd
}

// recover does all that the command does but read its flags.
func (d *daemon) recover(ctx context.Context, in io.Reader, r *recovery) (err error) {
	dir := r.config.Node.DataDir
	if err := mustBeEmpty(vfs.Default, dir); err != nil {
		return err
	}
	best, err := r.choose(ctx, d.stdout)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, best.close()) }()
	if err := r.confirm(in, d.stdout, best); err != nil {
		return err
	}
	lock, err := storage.LockDir(vfs.Default, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if err := mustBeEmpty(vfs.Default, dir); err != nil { // nobody else comes in from now on
		return err
	}
	report, err := r.make(ctx, best)
	if err != nil {
		return fmt.Errorf("recover into %s: %w; what is there by now is of no use: empty it, and recover again", dir, err)
	}
	_, err = fmt.Fprint(d.stdout, report)
	return err
}

// survivor is the opened data directory of a member that is left.
type survivor struct {
	dir      string
	identity storage.Identity
	engine   *storage.Engine
	log      *storage.Log
	last     storage.Position
	opened   []io.Closer
}

func (s *survivor) close() error {
	var err error
	for _, c := range slices.Backward(s.opened) {
		err = errors.Join(err, c.Close())
	}
	s.opened = nil
	return err
}

// openSurvivor opens a data directory as a start does, and changes no more.
func openSurvivor(ctx context.Context, dir string) (s *survivor, err error) {
	disk := vfs.Default
	s = &survivor{dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("open the survivor's data directory %s: %w", dir, err), s.close())
		}
	}()
	found := false
	if s.identity, found, err = storage.LoadIdentity(disk, dir); err != nil {
		return nil, err
	}
	if !found || s.identity.Stage != storage.StageReady {
		return nil, errors.New("it is no member's: identity.json is missing, or says that the member never was ready")
	}
	lock, err := storage.LockDir(disk, dir)
	if err != nil {
		return nil, err
	}
	s.opened = append(s.opened, lock)
	store, err := storage.OpenStore(ctx, storage.StoreOptions{
		Snapshots: storage.SnapshotsOptions{FS: disk, Dir: filepath.Join(dir, "snapshot")},
		Engine:    storage.EngineOptions{FS: disk, Dir: filepath.Join(dir, "state")},
		Log:       storage.LogOptions{FS: disk, Dir: filepath.Join(dir, "wal"), Base: consensus.Base(), Salt: rand.Uint64},
	})
	if err != nil {
		return nil, err
	}
	s.opened = append(s.opened, store)
	s.engine, s.log = store.Engine, store.Log
	s.last.Index = s.log.LastIndex()
	s.last.Term, err = s.log.Term(s.last.Index)
	return s, err
}

// choose opens all survivors, says what each has, and keeps the one with the
// newest log open: of the logs of a majority the newest has all that was committed.
func (r *recovery) choose(ctx context.Context, out io.Writer) (best *survivor, err error) {
	for _, dir := range r.survivors {
		s, err := openSurvivor(ctx, dir)
		if err != nil {
			return nil, errors.Join(err, closeSurvivor(best))
		}
		committed := max(s.log.Load().HardState.Commit, s.engine.AppliedIndex().Index)
		if _, err := fmt.Fprintf(out, "survivor   node %d of cluster %d in %s: log to entry %d of term %d, committed as far as it knows to %d\n",
			s.identity.NodeID, s.identity.ClusterID, dir, s.last.Index, s.last.Term, committed); err != nil {
			return nil, errors.Join(err, s.close(), closeSurvivor(best))
		}
		if best != nil && (s.identity.ClusterID != best.identity.ClusterID || s.identity.Founders != best.identity.Founders) {
			err := fmt.Errorf("%s and %s are data directories of two clusters, or of two incarnations of one", best.dir, dir)
			return nil, errors.Join(err, s.close(), best.close())
		}
		worse := s
		if best == nil || cmp.Or(cmp.Compare(s.last.Term, best.last.Term), cmp.Compare(s.last.Index, best.last.Index)) > 0 {
			best, worse = s, best
		}
		if err := closeSurvivor(worse); err != nil {
			return nil, errors.Join(err, best.close())
		}
	}
	return best, nil
}

func closeSurvivor(s *survivor) error {
	if s == nil {
		return nil
	}
	return s.close()
}

// confirm says what may be lost and asks.
func (r *recovery) confirm(in io.Reader, out io.Writer, best *survivor) error {
	id := strconv.FormatUint(best.identity.ClusterID, 10)
	text := fmt.Sprintf(`taken      node %d: no other has a newer log
lost       what a majority without the survivors has committed after entry %d of term %d
kept       all of its log, also what it does not know to be committed: it may have been acknowledged
           No member of the old cluster may be started again: two clusters would serve.
`, best.identity.NodeID, best.last.Index, best.last.Term)
	if !r.yes {
		text += fmt.Sprintf("Type the id of the lost cluster (%s) to go on: ", id)
	}
	if _, err := io.WriteString(out, text); err != nil || r.yes {
		return err
	}
	answer, err := bufio.NewReader(in).ReadString('\n')
	if strings.TrimSpace(answer) == id {
		return nil
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the answer: %w", err)
	}
	return fmt.Errorf("%q is not %s: nothing was changed (--yes does not ask)", strings.TrimSpace(answer), id)
}

// make salvages into a folder beside, and restores from there.
func (r *recovery) make(ctx context.Context, best *survivor) (report string, err error) {
	aside := filepath.Join(r.config.Node.DataDir, "recovering")
	defer func() { err = errors.Join(err, os.RemoveAll(aside)) }()
	engine, err := copyState(best.engine, aside)
	if err != nil {
		return "", fmt.Errorf("copy the survivor's state: %w", err)
	}
	defer func() { err = errors.Join(err, engine.Close()) }()
	m, err := registry.OpenMachine(registry.MachineConfig{Engine: engine, Region: r.config.Node.Region})
	if err != nil {
		return "", err
	}
	salvaged, err := consensus.Salvage(best.identity, engine, best.log, machine{m})
	if err != nil {
		return "", fmt.Errorf("apply the survivor's log: %w", err)
	}
	state, err := engine.Snapshot()
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, state.Close()) }()
	hash, err := state.Hash(ctx)
	if err != nil {
		return "", err
	}
	var restored consensus.Restored
	about := storage.SnapshotMeta{Index: salvaged.Last.Index, Term: salvaged.Last.Term, SHA256: hash}
	if err := read(state, func(in io.Reader) (err error) {
		restored, err = consensus.Restore(r.plan(vfs.Default, about, in))
		return err
	}); err != nil {
		return "", err
	}
	c := r.config
	var text strings.Builder
	fmt.Fprintf(&text, "recovered  %d services, up to entry %d; %d entries of it were not known to be committed\n",
		len(m.ServiceKeys("")), salvaged.Last.Index, salvaged.Last.Index-salvaged.Committed)
	fmt.Fprintf(&text, "now        node %d of %s, cluster %d, incarnation %s; revisions go on after %d\n", c.Node.ID, c.memberIDs(), c.Node.ClusterID, restored.Incarnation, restored.Base.Index)
	fmt.Fprintf(&text, "Next: %s\n", r.next)
	return text.String(), nil
}

// copyState is a state of its own with the same content.
func copyState(from *storage.Engine, dir string) (*storage.Engine, error) {
	state, err := from.Snapshot()
	if err != nil {
		return nil, err
	}
	engine, err := storage.OpenEngine(storage.EngineOptions{FS: vfs.Default, Dir: dir})
	if err != nil {
		return nil, errors.Join(err, state.Close())
	}
	if err := errors.Join(read(state, engine.Restore), state.Close()); err != nil {
		return nil, errors.Join(err, engine.Close())
	}
	return engine, nil
}

// read gives a state to who reads it, until he returns.
func read(state *storage.EngineSnapshot, reads func(io.Reader) error) error {
	in, out := io.Pipe()
	var written sync.WaitGroup
	written.Go(func() {
		_, err := state.WriteTo(out)
		out.CloseWithError(err) // nil is the end
	})
	err := reads(in)
	in.CloseWithError(io.ErrClosedPipe) // what the other side still writes is of no use
	written.Wait()
	return err
}

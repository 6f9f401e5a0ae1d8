package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/spf13/cobra"

	"github.com/stellmap/stellmap/consensus"
	"github.com/stellmap/stellmap/internal/version"
	"github.com/stellmap/stellmap/registry"
	"github.com/stellmap/stellmap/storage"
)

func (c *ctl) snapshotCommand() *cobra.Command {
	snapshot := c.group(&cobra.Command{
		Use:   "snapshot",
		Short: "Save a backup of the whole state, look at one, verify one",
		Long: `snapshot saves a backup of the whole state of a running region into one file,
and looks at and verifies such files offline. stellmapd restore makes a new
cluster of one.`,
		Example: `  stellmapctl snapshot save orders.backup
  stellmapctl snapshot verify orders.backup
  stellmapd restore --from orders.backup --data-dir ./stellmap-data`,
	})
	snapshot.AddCommand(c.snapshotSaveCommand(), c.snapshotInspectCommand(), c.snapshotVerifyCommand())
	return snapshot
}

func oneFile(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usagef("%s wants one file, got %d", nameOf(cmd), len(args))
	}
	return nil
}

// completeFiles has the shell complete the names of files.
func completeFiles(cmd *cobra.Command) *cobra.Command {
	cmd.ValidArgsFunction = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return cmd
}

func (c *ctl) snapshotSaveCommand() *cobra.Command {
	return completeFiles(&cobra.Command{
		Use:   "save FILE",
		Short: "Save a backup of the state of a running member",
		Long: `save has the asked member write its state, as it is at that moment, to FILE, or
to stdout for "-". Writes go on meanwhile. FILE appears when it is whole, synced
and its checksum was verified, and replaces an older one of that name.

The member sends it from its administration port, whose address is in the list
of members; --token, or STELLMAP_TOKEN, is what admin.token in its data
directory holds. --timeout is how long to wait for the first byte.`,
		Example: `  stellmapctl snapshot save orders.backup
  stellmapctl snapshot save - | ssh vault 'cat > orders.backup'
  STELLMAP_TOKEN=$(cat stellmap-data/admin.token) stellmapctl snapshot save "orders-$(date +%F).backup"`,
		Args: oneFile,
		RunE: func(cmd *cobra.Command, args []string) error { return c.snapshotSave(cmd.Context(), args[0]) },
	})
}

func (c *ctl) snapshotInspectCommand() *cobra.Command {
	return completeFiles(&cobra.Command{
		Use:   "inspect FILE",
		Short: "Show what is in a backup",
		Long: `inspect reads a backup to its end and shows what is in it: cluster, incarnation,
position in the log, when it was taken, how many services and instances, which
members, and the hash of the state, which is the same for the same state. It
asks no server. A .snap file out of a data directory is taken, too.`,
		Example: `  stellmapctl snapshot inspect orders.backup
  stellmapctl snapshot inspect orders.backup -o json | jq .stateHash`,
		Args: oneFile,
		RunE: func(_ *cobra.Command, args []string) error {
			s, err := readBackup("snapshot inspect", args[0])
			if err != nil {
				return err
			}
			return c.show(s.view())
		},
	})
}

func (c *ctl) snapshotVerifyCommand() *cobra.Command {
	return completeFiles(&cobra.Command{
		Use:   "verify FILE",
		Short: "Read a backup to its end and check every byte",
		Long: `verify reads a backup to its end: sizes, both checksums, and that this version
understands every record. It asks no server, and exits with 1 and the reason
when the file cannot be restored from.`,
		Example: `  stellmapctl snapshot verify orders.backup && cp orders.backup /mnt/vault/`,
		Args:    oneFile,
		RunE: func(_ *cobra.Command, args []string) error {
			s, err := readBackup("snapshot verify", args[0])
			if err != nil {
				return err
			}
			return c.show(view{whole: s, names: []string{s.File},
				line: fmt.Sprintf("%s is whole   cluster %d   index %d of term %d   %s, %s", s.File, s.ClusterID, s.Index, s.Term, count(s.Services, "service"), count(s.Instances, "instance"))})
		},
	})
}

// backupSummary is what is in a backup.
type backupSummary struct {
	File        string         `json:"file"`
	ClusterID   uint64         `json:"clusterId"`
	Incarnation string         `json:"incarnation"`
	Index       uint64         `json:"index"`
	Term        uint64         `json:"term"`
	Created     string         `json:"created"`
	FileBytes   int64          `json:"fileBytes"`  // of the state in the file
	StateBytes  int64          `json:"stateBytes"` // of the state itself
	SHA256      string         `json:"sha256"`
	StateHash   string         `json:"stateHash"`
	Services    int            `json:"services"`
	Instances   int            `json:"instances"`
	Passing     int            `json:"passing"`
	Imported    int            `json:"imported"` // instances of other regions
	Requests    int            `json:"requests"`
	Voters      []string       `json:"voters"`
	Members     []backupMember `json:"members"`
}

// backupMember is a line of the address book.
type backupMember struct {
	ID    string `json:"id"`
	UUID  string `json:"uuid"`
	HTTP  string `json:"http,omitempty"`
	XDS   string `json:"xds,omitempty"`
	GRPC  string `json:"grpc,omitempty"`
	Admin string `json:"admin,omitempty"`
}

// readBackup reads a backup to its end.
func readBackup(doing, file string) (backupSummary, error) {
	doing += " " + file
	s := backupSummary{File: file, Voters: []string{}, Members: []backupMember{}}
	b, err := storage.ReadBackup(vfs.Default, file, s.take)
	if errors.Is(err, fs.ErrNotExist) {
		return s, &failure{doing: doing, code: "not_found", exit: exitNotFound, why: "there is no such file"}
	}
	if err != nil {
		return s, &failure{doing: doing, code: "damaged", exit: exitFailed, why: err.Error(), next: "another backup, or the data directory of a member, must have what it had"}
	}
	s.ClusterID, s.Incarnation, s.Index, s.Term = b.ClusterID, b.Incarnation, b.Index, b.Term
	s.Created = time.UnixMilli(b.Created).UTC().Format(time.RFC3339)
	s.FileBytes, s.StateBytes, s.SHA256, s.StateHash = b.FileBytes, b.StateBytes, b.SHA256, b.StateHash
	return s, nil
}

// take counts one pair of the state.
func (s *backupSummary) take(key, value []byte) error {
	if fact, ok, err := consensus.DescribeKey(key, value); ok {
		if err != nil {
			return err
		}
		switch fact.Kind {
		case "request":
			s.Requests++
		case "member":
			var m backupMember
			err = json.Unmarshal(fact.Value, &m)
			s.Members = append(s.Members, m)
		case "configuration":
			var conf struct{ Voters []string }
			err = json.Unmarshal(fact.Value, &conf)
			s.Voters = append(s.Voters, conf.Voters...)
		}
		return err
	}
	record, ok, err := registry.DescribeRecord(key, value)
	switch {
	case !ok:
		return fmt.Errorf("it holds the key %q, which this version does not know: a newer version wrote it", key)
	case err != nil:
		return err
	case record.Kind == "service":
		s.Services++
	case record.Kind == "instance":
		s.Instances++
		if record.Passing {
			s.Passing++
		}
	case record.Kind == "imported instance":
		s.Imported++
	}
	return nil
}

func (s backupSummary) view() view {
	v := view{whole: s, names: []string{s.File}, columns: []column{{"WHAT", false}, {"VALUE", false}}}
	for _, row := range [][2]string{
		{"file", s.File},
		{"cluster", fmt.Sprint(s.ClusterID)},
		{"incarnation", s.Incarnation},
		{"index", fmt.Sprint(s.Index)},
		{"term", fmt.Sprint(s.Term)},
		{"created", s.Created},
		{"size", fmt.Sprintf("%s, of a state of %s", size(s.FileBytes), size(s.StateBytes))},
		{"sha256", s.SHA256},
		{"state-hash", s.StateHash},
		{"services", fmt.Sprint(s.Services)},
		{"instances", fmt.Sprintf("%d, %d of them passing", s.Instances, s.Passing)},
		{"imported", fmt.Sprintf("%d, of other regions", s.Imported)},
		{"requests", fmt.Sprint(s.Requests)},
		{"voters", strings.Join(s.Voters, ",")},
	} {
		v.rows = append(v.rows, row[:])
	}
	for _, m := range s.Members {
		v.rows = append(v.rows, []string{"member-" + m.ID, m.UUID + " " + m.HTTP})
	}
	return v
}

// size is a number of bytes for people.
func size(n int64) string {
	units := []string{"kB", "MB", "GB", "TB"}
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	f := float64(n) / 1000
	for f >= 1000 && len(units) > 1 {
		f, units = f/1000, units[1:]
	}
	return fmt.Sprintf("%.1f %s", f, units[0])
}

// stallMax is how long a backup that has begun may stand still.
const stallMax = time.Minute

func (c *ctl) snapshotSave(ctx context.Context, file string) error {
	const stdout = "-"
	doing := "snapshot save " + file
	if file == stdout && isTerminal(c.stdout) {
		return usagef("snapshot save -: stdout is a terminal, and a backup is nothing to read; send it into a file or a pipe")
	}
	base, err := c.adminBase(ctx, doing)
	if err != nil {
		return err
	}
	t := &transfer{c: c, doing: doing, base: base}
	if file == stdout {
		meta, err := t.receive(ctx, c.stdout)
		if err != nil {
			return err
		}
		return printLine(c.stderr, "%s", saved("backup", meta))
	}
	meta, err := t.intoFile(ctx, file)
	if err != nil {
		return err
	}
	return c.show(view{whole: meta, names: []string{file}, line: saved(file, meta)})
}

func saved(file string, m storage.SnapshotMeta) string {
	return fmt.Sprintf("saved %s   cluster %d   index %d of term %d   %s, of a state of %s", file, m.ClusterID, m.Index, m.Term, size(m.FileBytes), size(m.StateBytes))
}

// adminBase is where the asked member is administered.
func (c *ctl) adminBase(ctx context.Context, doing string) (string, error) {
	list, err := c.members(ctx, doing)
	if err != nil {
		return "", err
	}
	base, err := c.base()
	if err != nil {
		return "", err
	}
	scheme, _, _ := strings.Cut(base, "://")
	for _, m := range list.Members {
		if m.ID == list.LocalNodeID && m.Admin != "" {
			return scheme + "://" + m.Admin, nil
		}
	}
	return "", &failure{doing: doing, code: "no_admin", exit: exitFailed, why: fmt.Sprintf("member %d, which was asked, lists no administration address", list.LocalNodeID),
		next: "--server asks another member"}
}

// transfer is a backup on its way.
type transfer struct {
	c           *ctl
	doing, base string
}

// intoFile receives a backup into a file that appears when it is whole.
func (t *transfer) intoFile(ctx context.Context, path string) (m storage.SnapshotMeta, err error) {
	temp := path + ".tmp"
	file, err := os.OpenFile(temp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return m, t.wrong(err)
	}
	defer func() {
		if err != nil {
			if removed := os.Remove(temp); removed != nil && !errors.Is(removed, fs.ErrNotExist) {
				err = errors.Join(err, removed)
			}
		}
	}()
	if m, err = t.receive(ctx, file); err != nil {
		return m, errors.Join(err, file.Close())
	}
	err = file.Sync()
	if err = errors.Join(err, file.Close()); err != nil {
		return m, t.wrong(err)
	}
	if err = os.Rename(temp, path); err != nil {
		return m, t.wrong(err)
	}
	if err = syncFolder(filepath.Dir(path)); err != nil {
		return m, t.wrong(err)
	}
	return m, nil
}

func (t *transfer) wrong(err error) error {
	return &failure{doing: t.doing, code: "failed", exit: exitFailed, why: err.Error()}
}

// syncFolder makes the names in a folder durable.
func syncFolder(path string) error {
	folder, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// receive asks for a backup, passes it on, and checks it on its way.
func (t *transfer) receive(ctx context.Context, to io.Writer) (storage.SnapshotMeta, error) {
	within, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	patience := time.AfterFunc(t.c.timeout, func() { cancel(context.DeadlineExceeded) })
	defer patience.Stop()
	r := request{doing: t.doing, method: http.MethodGet, path: "/admin/v1/snapshot"}
	h, err := http.NewRequestWithContext(within, r.method, t.base+r.path, nil)
	if err != nil {
		return storage.SnapshotMeta{}, t.wrong(err)
	}
	h.Header.Set("User-Agent", "stellmapctl/"+version.Number)
	if t.c.token != "" {
		h.Header.Set("Authorization", "Bearer "+t.c.token)
	}
	client := &http.Client{Transport: t.c.transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	answer, err := client.Do(h)
	if err != nil {
		return storage.SnapshotMeta{}, noAnswer(ctx, r, t.base, t.c.timeout, causeOr(within, err))
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return storage.SnapshotMeta{}, t.refused(r, answer)
	}
	check := &storage.BackupCheck{}
	p := &progress{c: t.c, shown: isTerminal(t.c.stderr), began: t.c.now()}
	n, err := io.Copy(to, io.TeeReader(&lively{answer.Body, patience}, io.MultiWriter(check, p)))
	p.end()
	if err != nil {
		return storage.SnapshotMeta{}, t.cutOff(ctx, n, causeOr(within, err))
	}
	m, err := check.End()
	if err != nil {
		return m, &failure{doing: t.doing, code: "damaged", exit: exitFailed, why: fmt.Sprintf("what came from %s is no whole backup: %v", t.base, err), next: "it was not kept; try again"}
	}
	return m, nil
}

// causeOr is why the context ended, or the error where it has not.
func causeOr(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

func (t *transfer) cutOff(ctx context.Context, n int64, err error) error {
	f := &failure{doing: t.doing, code: "cut_off", exit: exitUnreachable, why: fmt.Sprintf("the backup from %s was cut off after %s: %s", t.base, size(n), reasonOf(err, stallMax)),
		next: "it was not kept; the log of that member says why, where it has ended it"}
	switch {
	case ctx.Err() != nil && !isTimeout(ctx.Err()):
		f.code, f.exit, f.next = "interrupted", exitFailed, "it was not kept"
	case isTimeout(err):
		f.code, f.exit = "timeout", exitTimeout
	}
	return f
}

// refused is an error answer of the administration port, whose form is v1's.
func (t *transfer) refused(r request, answer *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(answer.Body, 64<<10))
	var said struct{ Code, Message string }
	if err != nil || json.Unmarshal(body, &said) != nil || said.Code == "" {
		return strange(r, t.base, answer, body)
	}
	f := &failure{doing: t.doing, code: said.Code, status: answer.StatusCode, exit: exitOf(answer.StatusCode), why: said.Message}
	f.next = next(f, answer.Header.Get("Retry-After"))
	switch answer.StatusCode {
	case http.StatusUnauthorized:
		f.next = "--token or " + tokenVariable + " says who you are: admin.token in the member's data directory holds it"
	case http.StatusNotFound:
		f.exit, f.next = exitFailed, "is it an older stellmapd? this version's sends backups"
	}
	return f
}

// lively is a reader that may stand still only for so long.
type lively struct {
	r        io.Reader
	patience *time.Timer
}

func (l *lively) Read(p []byte) (int, error) {
	l.patience.Reset(stallMax)
	return l.r.Read(p)
}

// progress shows a person how far a backup has come.
type progress struct {
	c     *ctl
	shown bool
	began time.Time
	last  time.Time
	n     int64
}

// progressEvery is how often the line changes.
const progressEvery = 200 * time.Millisecond

func (p *progress) Write(b []byte) (int, error) {
	p.n += int64(len(b))
	if now := p.c.now(); p.shown && now.Sub(p.last) >= progressEvery {
		p.last = now
		p.print(now)
	}
	return len(b), nil
}

func (p *progress) print(now time.Time) {
	rate := ""
	if s := now.Sub(p.began).Seconds(); s > 0 {
		rate = fmt.Sprintf("   %s/s", size(int64(float64(p.n)/s)))
	}
	fmt.Fprintf(p.c.stderr, "\r\x1b[K%s%s", size(p.n), rate)
}

// end takes the line away.
func (p *progress) end() {
	if p.shown {
		fmt.Fprint(p.c.stderr, "\r\x1b[K")
	}
}

// isTerminal tells whether a person reads a stream as it comes.
func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	nowhere, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, nowhere)
}

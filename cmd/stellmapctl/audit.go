package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stellmap/stellmap/access/audit"
)

func (c *ctl) auditCommand() *cobra.Command {
	group := c.group(&cobra.Command{
		Use:     "audit",
		Short:   "Verify audit logs",
		Long:    `audit looks at the audit logs of members, offline.`,
		Example: `  stellmapctl audit verify audit.log*`,
	})
	group.AddCommand(c.auditVerifyCommand())
	return group
}

func (c *ctl) auditVerifyCommand() *cobra.Command {
	mark := ""
	cmd := completeFiles(&cobra.Command{
		Use:   "verify FILE...",
		Short: "Check that nothing in an audit log was changed",
		Long: `verify follows the hashes of an audit log through its files, which may be given
in any order. It exits with 1, and says which line of which file it is, when a
line was changed, taken out, put in, moved or cut, or when a file is missing
between two. It asks no server.

That the end of the newest file was cut off it can only tell of who has kept the
number and the hash of a line, as verify prints them for the last: --mark.`,
		Example: `  stellmapctl audit verify audit.log*
  stellmapctl audit verify audit.log* -o json | jq -r '"\(.last):\(.hash)"' > mark
  stellmapctl audit verify audit.log* --mark "$(cat mark)"`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("%s wants the files of an audit log", nameOf(cmd))
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			m, err := markOf(mark)
			if err != nil {
				return err
			}
			return c.auditVerify(args, m)
		},
	})
	cmd.Flags().StringVar(&mark, "mark", "", "NUMBER:HASH of a line that must be there")
	return cmd
}

// markOf reads the value of --mark.
func markOf(text string) (audit.Mark, error) {
	if text == "" {
		return audit.Mark{}, nil
	}
	number, hash, ok := strings.Cut(strings.TrimSpace(text), ":")
	seq, err := strconv.ParseUint(number, 10, 64)
	if !ok || err != nil || seq == 0 || hash == "" {
		return audit.Mark{}, usagef("--mark: %q is not NUMBER:HASH, as verify prints them", text)
	}
	return audit.Mark{Seq: seq, Hash: hash}, nil
}

func (c *ctl) auditVerify(files []string, mark audit.Mark) error {
	const doing = "audit verify"
	r, err := audit.Verify(files, mark)
	var damage *audit.DamageError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &failure{doing: doing, code: "not_found", exit: exitNotFound, why: err.Error()}
	case errors.As(err, &damage):
		return &failure{doing: doing, code: "damaged", exit: exitFailed, why: err.Error()}
	case err != nil:
		return &failure{doing: doing, code: "failed", exit: exitFailed, why: err.Error()}
	}
	verb := "hold"
	if r.Files == 1 {
		verb = "holds"
	}
	line := fmt.Sprintf("%s %s   lines %d to %d, %s to %s   %d denied", count(r.Files, "file"), verb, r.First, r.Last, r.From, r.To, r.Denied)
	if r.LeftOut > 0 {
		line += fmt.Sprintf(", %d more left out", r.LeftOut)
	}
	if r.Lost > 0 {
		line += fmt.Sprintf("   %d LOST", r.Lost)
	}
	return c.show(view{whole: r, names: files, line: fmt.Sprintf("%s   mark %d:%s", line, r.Last, r.Hash)})
}

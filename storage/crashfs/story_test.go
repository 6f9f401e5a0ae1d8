package crashfs

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Each file in testdata is a question about what a crash leaves, answered
// command by command.
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.story")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".story"), func(t *testing.T) {
			s := &story{t: t, disk: New(), open: map[string]vfs.File{}}
			datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
				s.d = d
				return s.handle()
			})
		})
	}
}

type story struct {
	t    *testing.T
	d    *datadriven.TestData
	disk *FS
	open map[string]vfs.File // by the name that they were opened by
}

// handle takes each command for one line of words; those with a mode come first.
func (s *story) handle() string {
	switch s.d.Cmd {
	case "show":
		return tree(s.disk, "\n")
	case "crash":
		return tree(s.disk.Crash(s.loss()), "\n")
	case "restart":
		s.disk, s.open = s.disk.Crash(s.loss()), map[string]vfs.File{}
		return tree(s.disk, "\n")
	case "outcomes":
		return s.outcomes()
	case "tears":
		return fmt.Sprintln(s.disk.Tears())
	case "trace":
		return strings.Join(s.disk.Trace(), "\n") + "\n"
	case "usage":
		u, err := s.disk.GetDiskUsage(".")
		return said(err, fmt.Sprintf("%d of %d bytes, %d left", u.UsedBytes, u.TotalBytes, u.AvailBytes))
	}
	return said(s.do(), "ok")
}

func said(err error, otherwise string) string {
	if err != nil {
		return err.Error() + "\n"
	}
	return otherwise + "\n"
}

// do is a program: a line for each step, up to the first that fails.
func (s *story) do() error {
	if s.d.Cmd != "do" {
		s.d.Fatalf(s.t, "unknown command %q", s.d.Cmd)
	}
	for line := range strings.Lines(s.d.Input) {
		if err := s.step(strings.Fields(line)); err != nil {
			return err
		}
	}
	return nil
}

func (s *story) step(words []string) error {
	path := words[1]
	switch words[0] {
	case "create":
		file, err := s.disk.Create(path, vfs.WriteCategoryUnspecified)
		s.open[path] = file
		return err
	case "write":
		return s.write(path, words[2], words[3:])
	case "sync":
		return s.sync(path)
	case "close":
		return s.open[path].Close()
	case "mkdir":
		return s.disk.MkdirAll(path, 0o700)
	case "rename":
		return s.disk.Rename(path, words[2])
	case "link":
		return s.disk.Link(path, words[2])
	case "remove":
		return s.disk.Remove(path)
	case "removeall":
		return s.disk.RemoveAll(path)
	case "preallocate":
		file, err := s.file(path)
		if err != nil {
			return err
		}
		return file.Preallocate(0, number(words[2]))
	case "space":
		s.disk.SetSpace(number(path))
		return nil
	case "failing": // failing sync path
		s.disk.Before(func(op Op) error {
			s.disk.Before(nil)
			return Forget(syscall.EIO)
		})
		return s.step(words[1:])
	case "refused": // refused any step
		s.disk.Before(func(op Op) error {
			s.disk.Before(nil)
			return syscall.EIO
		})
		return s.step(words[1:])
	}
	return fmt.Errorf("unknown step %q", words)
}

// write path text [at offset]; a letter and a number is so many of it.
func (s *story) write(path, text string, at []string) error {
	data := []byte(text)
	var letter string
	var n int
	if _, err := fmt.Sscanf(text, "%1s%d", &letter, &n); err == nil {
		data = bytes.Repeat([]byte(letter), n)
	}
	file, err := s.file(path)
	if err != nil {
		return err
	}
	if len(at) == 2 {
		_, err = file.WriteAt(data, number(at[1]))
	} else {
		_, err = file.Write(data)
	}
	return err
}

// file is an open file, opened if need be.
func (s *story) file(path string) (vfs.File, error) {
	if file := s.open[path]; file != nil {
		return file, nil
	}
	file, err := s.disk.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	s.open[path] = file
	return file, err
}

// sync is of a file or a directory, which may have another name by now.
func (s *story) sync(path string) error {
	file := s.open[path]
	if file != nil {
		return file.Sync()
	}
	file, err := s.disk.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}

func number(text string) int64 {
	var n int64
	if _, err := fmt.Sscan(text, &n); err != nil {
		panic(err)
	}
	return n
}

func (s *story) loss() Loss {
	modes := map[string]Mode{"nothing": LoseUnsynced, "all": KeepAll, "some": Random, "journal": Journal, "torn": TearLast, "sectors": TearAt}
	var keep string
	var l Loss
	s.d.ScanArgs(s.t, "keep", &keep)
	for key, to := range map[string]any{"seed": &l.Seed, "n": &l.Sectors} {
		if s.d.HasArg(key) {
			s.d.ScanArgs(s.t, key, to)
		}
	}
	l.Mode = modes[keep]
	return l
}

// outcomes is what crashes with the seeds from 1 to 300 may leave.
func (s *story) outcomes() string {
	seen := map[string]bool{}
	for seed := range uint64(300) {
		l := s.loss()
		l.Seed = seed + 1
		seen[tree(s.disk.Crash(l), "  ")] = true
	}
	return strings.Join(slices.Sorted(maps.Keys(seen)), "\n") + "\n"
}

// tree is all that can be seen.
func tree(disk *FS, separator string) string {
	var all []string
	var walk func(dir string)
	walk = func(dir string) {
		names, err := disk.List(dir)
		check(err)
		for _, name := range names {
			path := disk.PathJoin(dir, name)
			info, err := disk.Stat(path)
			check(err)
			if info.IsDir() {
				all = append(all, path+"/")
				walk(path)
				continue
			}
			data, err := disk.ReadFile(path)
			check(err)
			all = append(all, path+"="+short(data))
		}
	}
	walk(".")
	if len(all) == 0 {
		return "nothing" + strings.Repeat("\n", strings.Count(separator, "\n"))
	}
	return strings.Join(all, separator) + strings.Repeat("\n", strings.Count(separator, "\n"))
}

// short is a text with a run of five or more bytes as one of them and its length.
func short(data []byte) string {
	var b strings.Builder
	for len(data) > 0 {
		n := 1
		for n < len(data) && data[n] == data[0] {
			n++
		}
		letter := string(data[:1])
		if data[0] == 0 {
			letter = "0"
		}
		if n < 5 {
			b.WriteString(strings.Repeat(letter, n))
		} else {
			fmt.Fprintf(&b, "[%s*%d]", letter, n)
		}
		data = data[n:]
	}
	return b.String()
}

// check is for what cannot fail.
func check(err error) {
	if err != nil {
		panic(fmt.Sprintf("crashfs: test: %v", err))
	}
}

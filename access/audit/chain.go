package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// A chain is the files, as far as writing goes. One goroutine has it.
type chain struct {
	path     string
	bytesMax int64
	keep     int

	file  file   // nil while the next one is not there yet
	at    link   // the last line that is in the file whole
	first uint64 // the number of the file's first line, 0 while it has none
	size  int64
	torn  bool // a write has failed: what follows size is cut off before the next
	dirty bool // there is something to be synced
	buf   []byte

	create func(path string) (file, error)
}

// file is what a chain needs of one.
type file interface {
	io.WriteCloser
	Sync() error
	Truncate(size int64) error
}

// openChain goes on where the files end. cut is how much of the last line was not whole.
func openChain(path string, bytesMax int64, keep int) (c *chain, cut int64, err error) {
	c = &chain{path: path, bytesMax: bytesMax, keep: keep, at: origin, create: createFile}
	end, err := c.end()
	if err != nil {
		return nil, 0, fmt.Errorf("open the audit log: %w; move its files away to begin a new one", err)
	}
	c.at, c.first, c.size, c.torn = end.at, end.first, end.size, end.torn > 0
	if err := c.mend(); err != nil {
		return nil, 0, fmt.Errorf("open the audit log: %w", err)
	}
	return c, end.torn, nil
}

// createFile opens a file at its end, for its owner alone.
func createFile(path string) (file, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(0o600); err != nil { // it may have been there
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// write appends lines, and says how many are in the file whole.
func (c *chain) write(lines []line) (written int, err error) {
	for written < len(lines) && err == nil {
		var n int
		n, err = c.some(lines[written:])
		written += n
	}
	return written, err
}

// some appends as many lines as one write and the file have room for. With none the next
// file is begun.
func (c *chain) some(lines []line) (n int, err error) {
	if err := c.mend(); err != nil {
		return 0, err
	}
	buf, at := c.buf[:0], c.at
	for n < len(lines) && len(buf) < writeBytesMax {
		longer, next, err := at.add(buf, lines[n])
		if err != nil {
			return 0, err
		}
		if c.size+int64(len(buf)) > 0 && c.size+int64(len(longer)) > c.bytesMax {
			break
		}
		buf, at, n = longer, next, n+1
	}
	c.buf = buf
	if n == 0 {
		return 0, c.rotate()
	}
	c.dirty = true
	if _, err := c.file.Write(buf); err != nil {
		c.torn = true
		return 0, err
	}
	if c.size == 0 {
		c.first = c.at.seq + 1
	}
	c.at, c.size = at, c.size+int64(len(buf))
	return n, nil
}

// mend has a file that ends with a whole line.
func (c *chain) mend() error {
	if c.file == nil {
		f, err := c.create(c.path)
		if err != nil {
			return err
		}
		c.file = f
	}
	if c.torn {
		if err := c.file.Truncate(c.size); err != nil {
			return err
		}
		c.torn, c.dirty = false, true
	}
	return nil
}

// rotate puts the file aside and begins the next one.
func (c *chain) rotate() error {
	if err := c.sync(); err != nil {
		return err
	}
	if err := os.Rename(c.path, c.aside(c.first)); err != nil {
		return err
	}
	err := c.file.Close()
	c.file, c.first, c.size = nil, 0, 0
	return errors.Join(err, c.mend(), syncFolder(filepath.Dir(c.path)), c.forget())
}

// forget removes the oldest files above those that are kept.
func (c *chain) forget() error {
	all, err := c.asides()
	for err == nil && len(all) > c.keep {
		err = os.Remove(all[0])
		all = all[1:]
	}
	return err
}

const asideDigits = 20

// aside is the name of a file that is full.
func (c *chain) aside(first uint64) string { return fmt.Sprintf("%s.%0*d", c.path, asideDigits, first) }

// asides are the files that are full, the oldest first.
func (c *chain) asides() ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(c.path))
	if err != nil {
		return nil, err
	}
	var out []string
	prefix := filepath.Base(c.path) + "."
	for _, e := range entries {
		digits := bytes.TrimPrefix([]byte(e.Name()), []byte(prefix))
		if _, err := strconv.ParseUint(string(digits), 10, 64); err == nil && len(digits) == asideDigits && len(digits) < len(e.Name()) {
			out = append(out, filepath.Join(filepath.Dir(c.path), e.Name()))
		}
	}
	slices.Sort(out)
	return out, nil
}

func (c *chain) sync() error {
	if !c.dirty || c.file == nil {
		return nil
	}
	if err := c.file.Sync(); err != nil {
		return err
	}
	c.dirty = false
	return nil
}

func (c *chain) close() error {
	if c.file == nil {
		return nil
	}
	err := errors.Join(c.sync(), c.file.Close())
	c.file = nil
	return err
}

func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// end is where a file ends.
type end struct {
	at    link
	first uint64
	size  int64 // of the whole lines
	torn  int64 // bytes after them
}

// end is where the chain ends. A newest file without a whole line, or none at all, is what
// is left when the process or the machine ended just after the one before was put aside:
// the chain goes on from that, or its numbers would be given, and its files written, anew.
func (c *chain) end() (end, error) {
	newest, err := endOf(c.path)
	if newest.size > 0 || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return newest, err
	}
	last, err := c.endOfLastAside()
	return end{at: last.at, torn: newest.torn}, err
}

// endOfLastAside is where the newest of the files ends that are full.
func (c *chain) endOfLastAside() (end, error) {
	all, err := c.asides()
	if err != nil || len(all) == 0 {
		return end{at: origin}, err
	}
	return endOf(all[len(all)-1])
}

// endOf looks at the first line of a file and at the last one.
func endOf(path string) (e end, err error) {
	e.at = origin
	f, err := os.Open(path)
	if err != nil {
		return e, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return e, err
	}
	tail := make([]byte, min(info.Size(), 2*lineBytesMax))
	if _, err := f.ReadAt(tail, info.Size()-int64(len(tail))); err != nil {
		return e, err
	}
	whole := bytes.LastIndexByte(tail, '\n') + 1
	e.torn = int64(len(tail) - whole)
	e.size = info.Size() - e.torn
	if whole == 0 && int64(len(tail)) == info.Size() {
		return e, nil // not even the first line
	}
	last := tail[:max(whole-1, 0)]
	if _, e.at, err = read(last[bytes.LastIndexByte(last, '\n')+1:]); err != nil {
		return e, fmt.Errorf("%s: the last line: %w", path, err)
	}
	e.first, err = firstOf(f)
	if err != nil {
		err = fmt.Errorf("%s: the first line: %w", path, err)
	}
	return e, err
}

// firstOf is the number of a file's first line.
func firstOf(f io.ReaderAt) (uint64, error) {
	head := make([]byte, lineBytesMax+1)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	text, _, _ := bytes.Cut(head[:n], []byte{'\n'})
	_, at, err := read(text)
	return at.seq, err
}

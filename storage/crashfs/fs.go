package crashfs

import (
	"errors"
	"slices"
	"sync"
	"syscall"
)

// spaceBytesDefault is the size of a disk that SetSpace was not called for.
const spaceBytesDefault = 1 << 40

// FS is a file system in memory that can crash. It is safe for concurrent use.
//
// Operations that change something are done one at a time, each with its hooks
// before and after; the others, and Crash, are done whenever they are asked for.
type FS struct {
	turn sync.Mutex // held for one operation and its hooks; taken before mu

	mu      sync.Mutex // guards what follows, and the nodes
	hooks   hooks
	root    *node
	changes []change // of names, in order, those that are not durable
	made    uint64   // the id of the newest node
	space   int64
	used    int64
	story   []done
}

type hooks struct {
	before func(Op) error
	after  func(Op)
	delay  func(Op)
}

// New is an empty file system.
func New() *FS { return &FS{root: newDir(0), space: spaceBytesDefault} }

// Before sets what is asked before each operation that would change something
// and has nothing else against it. An error refuses the operation, with nothing
// done. Nil asks nobody.
//
// The hooks Before and After may read the file system, crash it and set hooks.
// They must not change it: the operation that they are called for has the turn.
func (f *FS) Before(hook func(Op) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hooks.before = hook
}

// After sets what is told of each operation that was done, in part at least.
func (f *FS) After(hook func(Op)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hooks.after = hook
}

// Delay sets what each operation waits for before it gets its turn and its
// index. Others go on meanwhile. It may do anything that its caller may.
func (f *FS) Delay(hook func(Op)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hooks.delay = hook
}

// SetSpace sets the size of the disk. Writes that do not fit are cut short and
// fail with ENOSPC; what is over already stays. The bytes of files count, names
// and directories do not.
func (f *FS) SetSpace(bytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.space = bytes
}

// Ops is how many operations were done or refused.
func (f *FS) Ops() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.story)
}

// Trace has a line for each operation so far.
func (f *FS) Trace() []string {
	f.mu.Lock()
	story := slices.Clip(f.story)
	f.mu.Unlock()
	lines := make([]string, len(story))
	for i, d := range story {
		lines[i] = d.String()
	}
	return lines
}

// errNothing ends an operation that has nothing to change, which is no error.
var errNothing = errors.New("crashfs: nothing to do")

// perform is every operation that may change something. Look says what it is,
// or why not; do does it. Both are called with mu held.
func (f *FS) perform(look func() (Op, error), do func(Op) error) error {
	err := f.wait(look)
	if err == nil {
		err = f.takeTurn(look, do)
	}
	if err == errNothing {
		return nil
	}
	return err
}

// takeTurn is the operation with its hooks, when no other is going on.
func (f *FS) takeTurn(look func() (Op, error), do func(Op) error) error {
	f.turn.Lock()
	defer f.turn.Unlock()
	op, hooks, err := f.look(look)
	if err != nil {
		return err
	}
	op.Index = f.Ops() + 1
	if hooks.before != nil {
		if err := hooks.before(op); isForgotten(err) && op.Kind.forgets() {
			do = func(op Op) error { f.forget(op.node); return err }
		} else if err != nil {
			return f.refuse(op, err)
		}
	}
	err = f.do(op, do)
	if hooks.after != nil {
		hooks.after(op)
	}
	return err
}

// wait lets Delay hold up an operation that has something to do.
func (f *FS) wait(look func() (Op, error)) error {
	f.mu.Lock()
	delay := f.hooks.delay
	f.mu.Unlock()
	if delay == nil {
		return nil
	}
	op, _, err := f.look(look)
	if err == nil {
		delay(op)
	}
	return err
}

func (f *FS) look(look func() (Op, error)) (Op, hooks, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	op, err := look()
	return op, f.hooks, err
}

func (f *FS) do(op Op, do func(Op) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := do(op)
	if err == nil {
		f.note(op, "")
		return nil
	}
	f.note(op, ", failed: "+err.Error())
	return pathError(op.Kind, op.Path, err)
}

// note goes on with the story. f.mu is held.
func (f *FS) note(op Op, end string) {
	op.node = nil // or the story would keep all bytes ever written
	f.story = append(f.story, done{op, end})
}

func (f *FS) refuse(op Op, err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note(op, ", refused: "+err.Error())
	return pathError(op.Kind, op.Path, err)
}

// forget is a failed sync of a file or directory.
func (f *FS) forget(n *node) {
	if n.dir {
		f.forgetNames(n)
	} else {
		n.forget()
	}
}

// take takes room for a file up to an end, and returns how much of the last
// bytes fits.
func (f *FS) take(n *node, end, last int64) (int64, error) {
	grow := end - n.room()
	if grow <= 0 {
		return last, nil
	}
	over := grow - max(0, f.space-f.used)
	if over <= 0 {
		f.used += grow
		return last, nil
	}
	if over >= last {
		return 0, syscall.ENOSPC
	}
	f.used += grow - over
	return last - over, syscall.ENOSPC
}

// ReadFile is a file's bytes.
func (f *FS) ReadFile(name string) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.find(name)
	if err == nil && n.dir {
		err = syscall.EISDIR
	}
	if err != nil {
		return nil, pathError("read", name, err)
	}
	return n.now.bytes(), nil
}

// WriteFile puts bytes in a file's place, on the disk too: for what no program
// did, such as damage. It is no operation. A name that is new is durable, and
// so are then the other names in its directory.
func (f *FS) WriteFile(name string, data []byte) error {
	f.turn.Lock()
	defer f.turn.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	at, n, err := f.place(name)
	if err == nil && n != nil && n.dir {
		err = syscall.EISDIR
	}
	if err != nil {
		return pathError("write", name, err)
	}
	if n == nil {
		n = f.add(at, false)
		f.syncNames(at.dir)
	}
	f.used -= n.room()
	n.replace(data)
	f.used += n.room()
	return nil
}

package storage

import (
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// breakage is the first error in the background. After one Pebble tries to
// flush again, for ever: whoever waits for a flush waits for this, too, or a
// member would never end.
type breakage struct {
	once sync.Once
	told chan struct{} // closed when err is there
	err  error
}

func (b *breakage) tell(err error) {
	b.once.Do(func() {
		b.err = err
		close(b.told)
	})
}

// open opens a database, or returns the error that is in the way: Pebble flushes
// while it opens, and tries that for ever, too. Damage does not keep it.
func (b *breakage) open(path string, o *pebble.Options) (*pebble.DB, error) {
	type opening struct {
		db    *pebble.DB
		err   error
		panic any
	}
	done := make(chan opening, 1)
	go func() {
		var end opening
		defer func() {
			end.panic = recover()
			done <- end
		}()
		end.db, end.err = pebble.Open(path, o)
	}()
	var end opening
	select {
	case end = <-done:
	case <-b.told:
		if err := b.ofDisk(); err != nil {
			return nil, err
		}
		end = <-done
	}
	if end.panic != nil {
		panic(end.panic)
	}
	return end.db, end.err
}

// flush makes what was applied durable, or returns the error that is in the way.
// It is final: that a later try goes through proves nothing of what was lost.
func (b *breakage) flush(db *pebble.DB) error {
	if err := b.happened(); err != nil {
		return err
	}
	done, err := db.AsyncFlush()
	if err != nil {
		return err
	}
	select {
	case <-done:
		return b.happened() // this flush may be a second try
	case <-b.told:
		return b.err
	}
}

// happened is the error, or nil when there was none.
func (b *breakage) happened() error {
	select {
	case <-b.told:
		return b.err
	default:
		return nil
	}
}

// ofDisk is the error if it is one of the disk. Damage that was read keeps
// nobody from writing.
func (b *breakage) ofDisk() error {
	if err := b.happened(); !IsDamagedState(err) {
		return err
	}
	return nil
}

// orElse does what may be done as long as the disk has not failed.
func (b *breakage) orElse(do func() error) error {
	if err := b.ofDisk(); err != nil {
		return err
	}
	return do()
}

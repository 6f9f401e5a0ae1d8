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

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/stellmap/stellmap/registry"
	"github.com/stellmap/stellmap/storage"
)

// backups are the copies of the state that are being sent. Each holds the
// engine, which must not be closed before they have ended.
type backups struct {
	ctx  context.Context // ends them all
	stop context.CancelFunc

	mu      sync.Mutex // guards what follows
	closed  bool
	running sync.WaitGroup
}

func newBackups() *backups {
	b := &backups{}
	b.ctx, b.stop = context.WithCancel(context.Background())
	return b
}

// begin tells whether one may begin; done ends it.
func (b *backups) begin(ctx context.Context) (within context.Context, done func(), ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || b.ctx.Err() != nil {
		return nil, nil, false
	}
	b.running.Add(1)
	within, cancel := context.WithCancelCause(ctx)
	release := context.AfterFunc(b.ctx, func() { cancel(registry.ErrStopping) })
	return within, func() { release(); cancel(nil); b.running.Done() }, true
}

// Close ends those that run and waits for it.
func (b *backups) Close() error {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.stop()
	b.running.Wait()
	return nil
}

// backup writes the state of a moment during the call.
func (n *node) backup(ctx context.Context, w io.Writer) (err error) {
	ctx, done, ok := n.backups.begin(ctx)
	if !ok {
		return registry.ErrStopping
	}
	defer done()
	began := time.Now()
	state, err := n.group.Snapshot(ctx)
	if err != nil {
		return asRegistry(fmt.Errorf("look at the state: %w", err))
	}
	defer func() { err = errors.Join(err, state.Close()) }()
	meta, err := storage.WriteBackup(ctx, w, state, storage.SnapshotMeta{
		ClusterID: n.config.Node.ClusterID, Incarnation: n.group.Status().Incarnation, Created: began.UnixMilli(),
	})
	if err != nil {
		return err
	}
	n.logger.Info("backup sent", "index", meta.Index, "state_bytes", meta.StateBytes, "file_bytes", meta.FileBytes, "took", time.Since(began))
	return nil
}

package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// store is the folder in which things outlive the process. Its files are for the user
// alone, since lease tokens are among them, and are whole or not there: they are written
// beside and renamed. A nil store keeps nothing.
//
//	view-{hash of the query}    what was known of a discovered service
//	token-{hash of the instance}  whose a registered instance is
type store struct{ dir string }

const (
	viewBytesMax  = 64 << 20 // of a saved service; one that is larger is not saved, and counted
	tokenBytesMax = 256
	filesMax      = 10_000 // in the folder; beyond it nothing new is saved
	viewFormat    = "stellmap-view-1"
)

func openStore(dir string) (*store, error) {
	if dir == "" {
		return nil, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("config.Dir: %w", err)
	}
	return &store{dir}, nil
}

// path is the file of something that is of a kind and is told from others by its names.
func (s *store) path(kind string, names ...string) string {
	digest := sha256.Sum256([]byte(strings.Join(names, "\x00")))
	return filepath.Join(s.dir, kind+"-"+hex.EncodeToString(digest[:16]))
}

func (s *store) viewPath(q Query) string {
	return s.path("view", q.Namespace, q.Service, q.Group, q.Version, q.Selector)
}

func (s *store) tokenPath(k key) string { return s.path("token", k.namespace, k.service, k.id) }

// read reads a file of a bounded size; nil where there is none.
func (s *store) read(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("%s has more than %d bytes", path, most)
	}
	return b, err
}

// write writes a file whole, and has it on disk before it takes the place of another.
func (s *store) write(path string, content []byte) error {
	if err := s.room(path); err != nil {
		return err
	}
	f, err := os.CreateTemp(s.dir, "new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// room refuses a new file where there are too many.
func (s *store) room(path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	all, err := os.ReadDir(s.dir)
	if err == nil && len(all) >= filesMax {
		err = fmt.Errorf("%s has %d files: remove those that are not needed any more", s.dir, len(all))
	}
	return err
}

// token is the lease token of an instance: the one that is kept, or a new one, which is
// kept before anybody is shown it.
func (s *store) token(k key, fresh func() string) (string, error) {
	if s == nil {
		return fresh(), nil
	}
	path := s.tokenPath(k)
	kept, err := s.read(path, tokenBytesMax)
	if err != nil {
		return "", err
	}
	if len(kept) > 0 {
		return string(kept), nil
	}
	token := fresh()
	return token, s.write(path, []byte(token))
}

// forgetToken is for an instance that is no more.
func (s *store) forgetToken(k key) error {
	if s == nil {
		return nil
	}
	if err := os.Remove(s.tokenPath(k)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("client: forget the lease token of %v: %w", k, err)
	}
	return nil
}

// savedView is a view as a file has it, behind a line with its format and checksum.
type savedView struct {
	Query     Query
	Current   time.Time // when it was last known to be
	Revision  uint64
	Resume    string
	Instances []*Instance
}

func headOf(body []byte) string {
	return fmt.Sprintf("%s %08x\n", viewFormat, crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)))
}

// load reads what was saved of a query and when it was current; nil where nothing was.
func (s *store) load(q Query) (*view, time.Time, error) {
	if s == nil {
		return nil, time.Time{}, nil
	}
	path := s.viewPath(q)
	b, err := s.read(path, viewBytesMax)
	if len(b) == 0 || err != nil {
		return nil, time.Time{}, err
	}
	head, body, _ := bytes.Cut(b, []byte("\n"))
	if string(head)+"\n" != headOf(body) {
		return nil, time.Time{}, fmt.Errorf("%s is damaged, or of another format", path)
	}
	var saved savedView
	if err := json.Unmarshal(body, &saved); err != nil {
		return nil, time.Time{}, fmt.Errorf("%s: %w", path, err)
	}
	if saved.Query != q {
		return nil, time.Time{}, fmt.Errorf("%s is of %v", path, saved.Query)
	}
	v := &view{instances: make(map[string]*Instance, len(saved.Instances)), revision: saved.Revision, resume: saved.Resume}
	for _, i := range saved.Instances {
		v.instances[i.ID] = i
	}
	return v, saved.Current, nil
}

func (s *store) save(v savedView) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(body) > viewBytesMax-64 {
		return fmt.Errorf("it has %d bytes, more than %d", len(body), viewBytesMax)
	}
	return s.write(s.viewPath(v.Query), append([]byte(headOf(body)), body...))
}

// saveViews saves the services that have changed, every while and before it ends.
func (c *Client) saveViews(ctx context.Context) {
	ticks := time.NewTicker(c.timing.saveEvery)
	defer ticks.Stop()
	for over := false; !over; {
		select {
		case <-ticks.C:
		case <-ctx.Done():
			over = true
		}
		for _, s := range c.all() {
			if err := c.save(s); err != nil {
				c.log.Warn("a service could not be saved", "error", err)
				c.metrics.unsaved.Add(ctx, 1)
			}
		}
	}
}

// save saves a service, where it has come further than what is on disk.
func (c *Client) save(s *Service) error {
	if c.store == nil {
		return nil
	}
	s.mu.Lock()
	v := savedView{Query: s.query, Current: s.current, Revision: s.view.revision, Resume: s.view.resume, Instances: s.now.Instances}
	due := s.now.number > 0 && v.Revision > s.saved
	s.mu.Unlock()
	if !due {
		return nil
	}
	if err := c.store.save(v); err != nil {
		return fmt.Errorf("client: save %v in %s: %w", s.query, c.config.Dir, err)
	}
	s.mu.Lock()
	s.saved = v.Revision
	s.mu.Unlock()
	return nil
}

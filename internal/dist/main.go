package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) < 2 || len(os.Args) > 3 {
		fmt.Fprintln(os.Stderr, "dist: want FOLDER [VERSION]")
		os.Exit(2)
	}
	d := &dist{stdout: os.Stdout, out: os.Args[1], version: strings.Join(os.Args[2:], "")}
	if err := d.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "dist:", err)
		os.Exit(1)
	}
}

// What is built, and for what.
var (
	commands  = []string{"stellmapd", "stellmapctl"}
	platforms = []string{"linux/amd64", "linux/arm64"}
)

const versionVariable = "github.com/stellmap/stellmap/internal/version.Number"

// dist is one run.
type dist struct {
	version string // of the release; "" = the one in internal/version
	out     string // the folder that is filled
	stdout  io.Writer

	files []string // names in out, for the checksums
}

func (d *dist) run(ctx context.Context) error {
	work, err := os.MkdirTemp("", "stellmap-dist-")
	if err != nil {
		return err
	}
	defer func() { // the modules in it cannot be written, but for their owner's sake
		if err := removeAll(work); err != nil {
			fmt.Fprintln(d.stdout, "dist: left behind:", err)
		}
	}()
	if err := os.MkdirAll(d.out, 0o755); err != nil {
		return err
	}
	var builds [2]string
	for i := range builds {
		if builds[i], err = d.build(ctx, work, i); err != nil {
			return err
		}
	}
	for _, platform := range platforms {
		for _, command := range commands {
			if err := d.take(builds, nameOf(command, platform)); err != nil {
				return err
			}
		}
	}
	return d.writeSums()
}

// nameOf is what a binary is called.
func nameOf(command, platform string) string {
	return command + "_" + strings.ReplaceAll(platform, "/", "_")
}

// build makes all binaries of a checkout of its own, of the commit that is checked out here,
// with a cache of its own: one that both had would be one build. It returns their folder.
func (d *dist) build(ctx context.Context, work string, number int) (string, error) {
	at := filepath.Join(work, strings.Repeat("nested/", number), fmt.Sprintf("checkout-%d", number))
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return "", err
	}
	if err := command(ctx, ".", nil, "git", "clone", "--quiet", "--no-hardlinks", ".", at); err != nil {
		return "", err
	}
	out := filepath.Join(work, fmt.Sprintf("out-%d", number))
	flags := ""
	if d.version != "" {
		flags = "-X " + versionVariable + "=" + d.version
	}
	for _, platform := range platforms {
		goos, goarch, _ := strings.Cut(platform, "/")
		env := []string{"CGO_ENABLED=0", "GOFLAGS=", "GOOS=" + goos, "GOARCH=" + goarch, "GOCACHE=" + filepath.Join(work, fmt.Sprintf("cache-%d", number))}
		for _, one := range commands {
			fmt.Fprintf(d.stdout, "build %d of %s\n", number+1, nameOf(one, platform))
			err := command(ctx, at, env, "go", "build", "-trimpath", "-buildvcs=true", "-mod=readonly", "-ldflags="+flags, "-o", filepath.Join(out, nameOf(one, platform)), "./cmd/"+one)
			if err != nil {
				return "", err
			}
		}
	}
	return out, nil
}

func command(ctx context.Context, dir string, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return nil
}

// take puts a binary that both builds agree about into out, with its bills of materials.
func (d *dist) take(builds [2]string, name string) error {
	first, err := os.ReadFile(filepath.Join(builds[0], name))
	if err != nil {
		return err
	}
	second, err := os.ReadFile(filepath.Join(builds[1], name))
	if err != nil {
		return err
	}
	sum := hashOf(first)
	if again := hashOf(second); again != sum {
		return fmt.Errorf("%s: two builds of one commit differ: %s and %s", name, sum, again)
	}
	if err := static(first); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	info, err := buildinfo.Read(bytes.NewReader(first))
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	b, err := billOf(name, sum, d.version, info)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	fmt.Fprintf(d.stdout, "%s  %s, built twice, of %d modules\n", sum, name, len(b.modules))
	return errors.Join(d.put(name, first, 0o755), d.put(name+".cdx.json", b.cycloneDX(), 0o644), d.put(name+".spdx.json", b.spdx(), 0o644))
}

// static refuses a binary that wants a loader.
func static(binary []byte) error {
	f, err := elf.NewFile(bytes.NewReader(binary))
	if err != nil {
		return err
	}
	if slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC }) {
		return errors.New("it is not static")
	}
	return nil
}

func (d *dist) put(name string, content []byte, mode os.FileMode) error {
	d.files = append(d.files, name)
	return os.WriteFile(filepath.Join(d.out, name), content, mode)
}

// writeSums writes the checksums in the form of sha256sum.
func (d *dist) writeSums() error {
	slices.Sort(d.files)
	var out bytes.Buffer
	for _, name := range d.files {
		content, err := os.ReadFile(filepath.Join(d.out, name))
		if err != nil {
			return err
		}
		fmt.Fprintf(&out, "%s  %s\n", hashOf(content), name)
	}
	return os.WriteFile(filepath.Join(d.out, "SHA256SUMS"), out.Bytes(), 0o644)
}

func hashOf(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// removeAll is os.RemoveAll for folders that may not be written.
func removeAll(path string) error {
	err := filepath.WalkDir(path, func(at string, e os.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			err = os.Chmod(at, 0o700)
		}
		return err
	})
	return errors.Join(err, os.RemoveAll(path))
}

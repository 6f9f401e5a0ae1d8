package grpcclients

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/stellmap/stellmap/internal/process"
)

// The languages that there are clients in.
const (
	Go     = "go"
	Java   = "java"
	Node   = "node"
	Python = "python"
)

// Languages are all of them.
var Languages = []string{Go, Java, Node, Python}

// top is the top folder, seen from the tests that run clients. It is found once.
var top = sync.OnceValues(func() (string, error) {
	at, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; at != "/"; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "go.mod")); err == nil {
			return at, nil
		}
	}
	return "", errors.New("no go.mod above the working directory")
})

// Command is what runs the client of a language, from the top folder. What a script
// has not fetched yet is an error; Go's is built into a folder.
func Command(language, folder string) ([]string, error) {
	root, err := top()
	if err != nil {
		return nil, err
	}
	if language == Go {
		binary := filepath.Join(folder, "grpc-client")
		return []string{binary}, buildGo(root, binary)
	}
	words, err := os.ReadFile(filepath.Join(root, ".cache/grpc", language, "command"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("scripts/grpc-%s has not been run", language)
	}
	return strings.Fields(string(words)), err
}

func buildGo(root, binary string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-o", binary, "./internal/grpcclients/golang")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the Go client: %w\n%s", err, out)
	}
	return nil
}

// Options are what a client needs.
type Options struct {
	Command   []string // of Command
	Target    string
	Bootstrap string // the file
	Rate      int    // calls a second
	Folder    string // for its log
}

// A Client is one that runs. One goroutine asks it.
type Client struct {
	*process.Process
	file    *os.File
	log     *bufio.Reader
	half    string // of a line that is being written
	answers []Answer
}

// Start starts a client. Whoever does ends it.
func Start(o Options) (*Client, error) {
	root, err := top()
	if err != nil {
		return nil, err
	}
	p, err := process.Start(process.Options{
		Name: "client", Path: o.Command[0], Dir: root, Logs: o.Folder,
		Args: append(o.Command[1:len(o.Command):len(o.Command)], o.Target, strconv.Itoa(o.Rate)),
		Env:  []string{"GRPC_XDS_BOOTSTRAP=" + o.Bootstrap},
	})
	if err != nil {
		return nil, err
	}
	log, err := os.Open(p.Log)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read the client's log: %w", err), p.Kill())
	}
	return &Client{Process: p, log: bufio.NewReader(log), file: log}, nil
}

// End ends the client.
func (c *Client) End() error { return errors.Join(c.Kill(), c.file.Close()) }

// An Answer is what became of one call.
type Answer struct {
	From  string `json:"from"`
	Error string `json:"error"`
}

// Answers are all so far, in the order of their coming. What else a client's
// library prints is passed over.
func (c *Client) Answers() ([]Answer, error) {
	for {
		text, err := c.log.ReadString('\n')
		if c.half += text; err != nil {
			if errors.Is(err, io.EOF) {
				return c.answers, nil
			}
			return nil, fmt.Errorf("read the client's log: %w", err)
		}
		var a Answer
		if json.Unmarshal([]byte(c.half), &a) == nil && a != (Answer{}) {
			c.answers = append(c.answers, a)
		}
		c.half = ""
	}
}

// Await waits until the last n answers, none of them older than the call of Await, are as they should be.
func (c *Client) Await(ctx context.Context, limit time.Duration, n int, what string, check func([]Answer) error) error {
	before, err := c.Answers()
	if err != nil {
		return err
	}
	_, err = process.Within(ctx, limit, what, func() error {
		if !c.Running() {
			return fmt.Errorf("the client has ended: %s", c.Tail(5))
		}
		answers, err := c.Answers()
		if err != nil {
			return err
		}
		if fresh := len(answers) - len(before); fresh < n {
			return fmt.Errorf("it has had %d answers of %d", fresh, n)
		}
		return check(answers[len(answers)-n:])
	})
	return err
}

// failed counts errors that are not the first.
const failed = "others that failed"

// Count says how many of the answers are from whom. The first error has its text.
func Count(answers []Answer) map[string]int {
	out := make(map[string]int)
	first := ""
	for _, a := range answers {
		switch {
		case a.Error == "":
			out[a.From]++
		case first == "" || a.Error == first:
			first = a.Error
			out[first]++
		default:
			out[failed]++
		}
	}
	return out
}

// Only is an error unless each of the named has answered, and nobody else.
func Only(answers []Answer, names ...string) error {
	count := Count(answers)
	for _, name := range names {
		if count[name] == 0 {
			return fmt.Errorf("%s is not among %v", name, count)
		}
	}
	if len(count) != len(names) {
		return fmt.Errorf("besides %s there are others: %v", strings.Join(names, " and "), count)
	}
	return nil
}

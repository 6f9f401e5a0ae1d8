package corpus

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// BytesMax is the most that a file has: a corpus is read by people, too.
const BytesMax = 4 << 10

// Head is the first line of a file, as package testing wants it.
const Head = "go test fuzz v1\n"

var write = flag.Bool("write-corpus", false, "write what fuzz targets begin with into testdata/fuzz, where it is not there yet")

var notInNames = regexp.MustCompile(`[^a-z0-9]+`)

// Add is f.Add, for what has a file of this name.
func Add(f *testing.F, name string, values ...any) {
	f.Helper()
	f.Add(values...)
	if !*write {
		return
	}
	file := strings.Trim(notInNames.ReplaceAllString(strings.ToLower(name), "-"), "-")
	if err := save(filepath.Join("testdata", "fuzz", f.Name()), file, values); err != nil {
		f.Fatalf("the corpus of %s: %q: %v", f.Name(), name, err)
	}
}

// save leaves a file that is there.
func save(dir, name string, values []any) error {
	text, err := encode(values)
	if err == nil && len(text) > BytesMax {
		err = fmt.Errorf("%d bytes, the most is %d", len(text), BytesMax)
	}
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err != nil {
		return err
	}
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.WriteFile(path, text, 0o644)
}

// encode writes values as package testing reads them.
func encode(values []any) ([]byte, error) {
	text := []byte(Head)
	for _, v := range values {
		switch v.(type) {
		case []byte, string:
			text = fmt.Appendf(text, "%T(%q)\n", v, v)
		case bool, byte, int32, int64, uint64:
			text = fmt.Appendf(text, "%T(%v)\n", v, v)
		default:
			return nil, fmt.Errorf("a %T has no form in the file yet", v)
		}
	}
	return []byte(strings.ReplaceAll(string(text), "[]uint8(", "[]byte(")), nil
}

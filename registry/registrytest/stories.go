package registrytest

import (
	"os"
	"path/filepath"
	"testing"
)

// Stories runs each file in testdata by its name. What stands in a folder there is no
// story: fuzz targets keep what they begin with beside them.
func Stories(t *testing.T, run func(t *testing.T, path string)) {
	t.Helper()
	entries, err := os.ReadDir("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range entries {
		if !one.IsDir() {
			t.Run(one.Name(), func(t *testing.T) { run(t, filepath.Join("testdata", one.Name())) })
		}
	}
}

package e2e

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var (
	schemathesis  = flag.String("schemathesis", "", "the program that TestTheContract asks with; empty = leave it out")
	contractCases = flag.Int("contract-cases", 25, "how many calls it makes up for each operation")
)

// A member gets calls that its own description of the API makes up, right ones and wrong
// ones, and answers all of them as it says there: with statuses, types, headers and bodies
// that are described, never with 500, and refuses what is not as described.
func TestTheContract(t *testing.T) {
	if *schemathesis == "" {
		t.Skip("make contract runs it")
	}
	config, err := filepath.Abs("testdata/schemathesis.toml")
	if err != nil {
		t.Fatal(err)
	}
	c := newCluster(t, 1)
	for n, id := range []string{"a", "b", "c"} { // that calls find something
		instance := strings.Replace(instanceURL(c.members[0], "orders", id), "/default/", "/prod/", 1)
		c.must(http.MethodPut, instance, fmt.Sprintf(`{"zone":"z1","endpoints":[{"protocol":"http","host":"10.0.0.%d","port":80}]}`, n+1), http.StatusCreated)
	}
	number := seed(t).Int64()
	run := exec.CommandContext(t.Context(), *schemathesis, "--config-file", config, "run", c.members[0].url()+"/openapi.json", "--phases", "examples,fuzzing",
		"--max-examples", fmt.Sprint(*contractCases), "--seed", fmt.Sprint(number), "--continue-on-failure", "--no-color", "--suppress-health-check", "all")
	run.Dir, run.Env = t.TempDir(), append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
	said, err := run.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	t.Logf("%s", said)
}

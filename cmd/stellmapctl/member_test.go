package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// waiting runs a command whose pauses are steps: before each try but the first
// the world gives the next answer.
func waiting(t *testing.T, wait time.Duration, args []string, first string, answers ...string) (code int, out, errs string) {
	t.Helper()
	w := newWorld(t)
	w.answer(`GET /api/v2/members 200
{"clusterId":100,"localNodeId":1,"leaderId":1,"term":3,"revision":9,"members":[{"id":1,"role":"leader","voter":true,"local":true,"http":"127.0.0.1:8080","admin":"127.0.0.1:18080"}]}`)
	w.answer(first)
	now := testNow
	var stdout, stderr bytes.Buffer
	c := &ctl{lookup: noEnvironment, stdout: &stdout, stderr: &stderr, transport: w.transport(), now: func() time.Time { return now }}
	c.after = func(d time.Duration) <-chan time.Time {
		now = now.Add(d)
		if len(answers) > 0 {
			w.answer(answers[0])
			answers = answers[1:]
		}
		done := make(chan time.Time, 1)
		done <- now
		return done
	}
	code = c.run(t.Context(), append(args, "--wait", wait.String()))
	return code, stdout.String(), stderr.String()
}

const (
	promotePath = "POST http://127.0.0.1:18080/admin/v1/members/promote "
	replacePath = "POST http://127.0.0.1:18080/admin/v1/members/replace "
)

// A wait tries until what was in the way has passed, and no longer than it may.
func TestChangesWait(t *testing.T) {
	behind := promotePath + `409
{"code":"member_behind","message":"node 4 is 2000 entries behind","behind":2000}`
	electing := promotePath + `503
{"code":"no_leader","message":"no leader"}`
	removed := promotePath + `409
{"code":"member_removed","message":"node 4 was removed"}`
	promoted := promotePath + `200
{"code":"ok","data":{"revision":12,"leaderId":1,"voters":[1,4]}}`
	under := replacePath + `200
{"code":"ok","data":{"revision":12,"leaderId":1,"voters":[1,2],"learners":[4],"replacement":{"nodeId":2,"newNodeId":4,"stage":"catching up"}}}`
	replaced := replacePath + `200
{"code":"ok","data":{"revision":14,"leaderId":1,"voters":[1,4]}}`
	promote, replace := []string{"member", "promote", "4"}, []string{"member", "replace", "--node-id", "2", "--new-node-id", "4"}
	for name, s := range map[string]struct {
		args           []string
		wait           time.Duration
		first          string
		answers        []string
		code           int
		stdout, stderr string
	}{
		"until it has caught up":    {promote, time.Minute, behind, []string{behind, electing, promoted}, exitOK, "node 4 votes", ""},
		"not for ever":              {promote, time.Second, behind, nil, exitConflict, "", "2000 entries behind"},
		"not for what does not end": {promote, time.Minute, removed, []string{promoted}, exitConflict, "", "was removed"},
		"until it is replaced":      {replace, time.Minute, under, []string{under, replaced}, exitOK, "node 4 has taken the place of node 2", "catching up\n"},
		"while it is replaced":      {replace, time.Second, under, nil, exitTimeout, "", "it goes on without this command"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := waiting(t, s.wait, s.args, s.first, s.answers...)
			if code != s.code || !strings.Contains(stdout, s.stdout) || !strings.Contains(stderr, s.stderr) {
				t.Errorf("exit %d, want %d\n%s%s", code, s.code, stdout, stderr)
			}
		})
	}
}

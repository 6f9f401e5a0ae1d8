package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

const (
	renewalsPerTTL    = 3           // two may fail before the lease runs out
	renewAgainMax     = time.Second // between a failed renewal and the next
	attemptTimeMin    = time.Second // for an answer, however short the TTL
	deregisterTimeMax = 5 * time.Second
)

// A keeper holds one instance in the registry until it is told to stop.
//
// Renewals are due a third of the TTL after the last one began, not after it
// was answered: a slow server must not stretch them. One that fails is tried
// again after a second at most. What is wrong is said when it changes, not at
// every attempt, so that an outage of an hour is two lines and not a thousand.
type keeper struct {
	c       *ctl
	ref     instanceRef
	by      holder // with one token throughout: an answer that is lost does not lock the keeper out
	body    registration
	every   time.Duration
	trouble string // the code of what was last said to be wrong, "" while renewals succeed
}

// keep registers an instance, renews its lease until ctx ends, and deregisters it.
func (c *ctl) keep(ctx context.Context, ref instanceRef, by holder, body registration) error {
	if by.token == "" {
		by.token = c.newToken()
	}
	k := &keeper{c: c, ref: ref, by: holder{token: by.token}, body: body, every: time.Duration(body.LeaseTTLSeconds) * time.Second / renewalsPerTTL}
	begun := c.now()
	answer, err := c.register(ctx, ref, by, body)
	switch {
	case hasCode(err, "interrupted"): // it may have been done all the same
		return k.end(ctx)
	case err != nil:
		return err
	}
	if err := c.show(registered(ref, answer, "lease "+seconds(body.LeaseTTLSeconds)+", renewed by this command; Ctrl-C deregisters")); err != nil {
		return errors.Join(err, k.end(ctx))
	}
	return k.run(ctx, begun.Add(k.every))
}

func (k *keeper) run(ctx context.Context, due time.Time) error {
	for {
		select {
		case <-ctx.Done():
			return k.end(ctx)
		case <-k.c.after(due.Sub(k.c.now())):
		}
		begun := k.c.now()
		err := k.renew(ctx)
		if ctx.Err() != nil {
			return k.end(ctx)
		}
		if hasCode(err, "wrong_lease_token") { // another has taken its place after an outage: there is nothing left to keep
			return err
		}
		pause, err := k.tell(err)
		if err != nil {
			return errors.Join(err, k.end(ctx))
		}
		due = begun.Add(pause)
	}
}

// renew makes one attempt, and registers again what the registry does not have
// any more.
func (k *keeper) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, max(k.every, attemptTimeMin))
	defer cancel()
	var answer written
	err := k.c.call(ctx, request{doing: "renew " + k.ref.String(), method: http.MethodPost, path: k.ref.path() + "/renew", by: k.by}, &answer)
	if !hasCode(err, "not_found") {
		return err
	}
	if answer, err = k.c.register(ctx, k.ref, k.by, k.body); err != nil {
		return err
	}
	k.trouble = ""
	return k.say("registered_again", fmt.Sprintf("%s was gone from the registry: registered again   rev %d", k.ref.short(), answer.Revision))
}

// tell says on stderr what has changed about the renewals, and how long to wait
// for the next. Its error is that nobody listens any more.
func (k *keeper) tell(err error) (time.Duration, error) {
	if err == nil {
		if k.trouble == "" {
			return k.every, nil
		}
		k.trouble = ""
		return k.every, k.say("renewed_again", k.ref.short()+" is renewed again")
	}
	pause := min(k.every, renewAgainMax)
	f := asFailure(err, true)
	if f.code == k.trouble {
		return pause, nil
	}
	k.trouble = f.code
	return pause, k.say(f.code, fmt.Sprintf("%v; trying again every %v", f, pause.Round(time.Millisecond)))
}

// say is one line on stderr about how it goes.
func (k *keeper) say(code, text string) error {
	if k.c.output != formatJSON && k.c.output != formatJSONL {
		return printLine(k.c.stderr, "stellmapctl: %s", printable(text))
	}
	line, err := asJSON(struct {
		Code   string `json:"code"`
		Detail string `json:"detail"`
	}{code, text}, "")
	if err != nil {
		return err
	}
	_, err = k.c.stderr.Write(line)
	return err
}

// end deregisters, although ctx has ended: it has a deadline of its own.
func (k *keeper) end(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), deregisterTimeMax)
	defer cancel()
	answer, err := k.c.delete(ctx, k.ref, k.by)
	var f *failure
	if errors.As(err, &f) {
		f.exit = exitUnreachable // whatever it was, the instance is still there
		f.next = fmt.Sprintf("it stays until its lease of %s runs out, or: stellmapctl deregister %s --id %s -n %s --lease-token %s", seconds(k.body.LeaseTTLSeconds), k.ref.service, k.ref.id, k.ref.namespace, k.by.token)
	}
	if err != nil {
		return err
	}
	return k.c.show(deregistered(k.ref, answer))
}

package registry

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// A CursorHome is where cursors are good: one member of one incarnation of a cluster.
type CursorHome struct {
	Incarnation string
	Member      uint64
}

// A HomedCursor is a cursor as clients see it: it says whose it is.
type HomedCursor struct {
	Home  CursorHome
	Place Cursor
}

func (c HomedCursor) String() string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%s/%d/%s/%d/%d", c.Home.Incarnation, c.Home.Member, c.Place.View, c.Place.Run, c.Place.Offset))
}

// ParseCursor reads what String has written.
func ParseCursor(text string) (HomedCursor, error) {
	c, err := parseCursor(text)
	if err != nil {
		return HomedCursor{}, badCursor(fmt.Sprintf("%s is not one that a list has given: take nextCursor as it is, or leave it out to begin anew", quoted(text)))
	}
	return c, nil
}

func parseCursor(text string) (c HomedCursor, err error) {
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return c, err
	}
	parts := strings.Split(string(raw), "/")
	if len(parts) != 5 {
		return c, fmt.Errorf("it has %d parts", len(parts))
	}
	c.Home.Incarnation, c.Place.View = parts[0], parts[2]
	var wrong [3]error
	c.Home.Member, wrong[0] = strconv.ParseUint(parts[1], 10, 64)
	c.Place.Run, wrong[1] = strconv.Atoi(parts[3])
	c.Place.Offset, wrong[2] = strconv.Atoi(parts[4])
	return c, errors.Join(wrong[:]...)
}

// At refuses a cursor of another member, or of another cluster than this has become.
func (c HomedCursor) At(home CursorHome) error {
	switch {
	case c.Home.Incarnation != home.Incarnation:
		return &cursorError{why: fmt.Sprintf("it is of incarnation %s of the cluster, and this is %q", quoted(c.Home.Incarnation), home.Incarnation)}
	case c.Home.Member != home.Member:
		return &cursorError{why: fmt.Sprintf("member %d gave it, and this is member %d", c.Home.Member, home.Member)}
	}
	return nil
}

// A cursorError is a cursor that was once good, and why it is no more.
type cursorError struct{ why string }

func (e *cursorError) Error() string {
	return "the list cannot go on from this cursor: " + e.why + ". Begin it anew, without a cursor"
}

// Unwrap makes it an ErrCursorExpired.
func (e *cursorError) Unwrap() error { return ErrCursorExpired }

package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// An Entry is one act. It must hold nothing that is secret.
type Entry struct {
	Who     string // the SPIFFE ID that was proved; "" = Record finds it
	Token   string // which token was shown, never what it is: "admin:1a2b3c4d"; "" = none that is known
	From    string // host:port
	Port    string // the name of the port that it came by
	Does    string // the operation, as the description of the API names it
	On      string // the object
	Denied  bool
	Code    string // why it was denied, or what is unknown of its outcome; "" = it was done
	Before  uint64 // the member's revision as the call came
	After   uint64 // the revision that it has become, 0 for none
	Request string // the caller's id of the call
}

// TokenName is what a token, or the Authorization header with it, is called: it tells one
// from another, and of its digest has too little to try tokens by.
func TokenName(kind, token string) string {
	if _, bare, ok := strings.Cut(token, " "); ok {
		token = strings.TrimSpace(bare)
	}
	sum := sha256.Sum256([]byte(token))
	return kind + ":" + hex.EncodeToString(sum[:4])
}

// Anonymous is who has proved nothing.
const Anonymous = "anonymous"

// The acts of the log itself.
const (
	DoesBegin   = "audit.begin"   // the file was opened by a process that starts
	DoesLost    = "audit.lost"    // count lines have no place here: they came faster than they could be written
	DoesLeftOut = "audit.leftOut" // count denials are not told one by one
)

// The words of a decision.
const (
	allowed = "allowed"
	denied  = "denied"
)

// line is an entry as it is written. The order of the keys is that of the file, and the
// hash, of all before it, is the last.
type line struct {
	Seq      uint64 `json:"seq"`
	Time     string `json:"time"`
	Who      string `json:"who,omitempty"`
	Token    string `json:"token,omitempty"`
	From     string `json:"from,omitempty"`
	Port     string `json:"port,omitempty"`
	Does     string `json:"does"`
	On       string `json:"on,omitempty"`
	Decision string `json:"decision,omitempty"`
	Code     string `json:"code,omitempty"`
	Before   uint64 `json:"before,omitempty"`
	After    uint64 `json:"after,omitempty"`
	Request  string `json:"request,omitempty"`
	Count    uint64 `json:"count,omitempty"`
	Note     string `json:"note,omitempty"`
	Prev     string `json:"prev"`
}

// The bounds of a line.
const (
	fieldBytesMax = 1 << 10
	lineBytesMax  = 64 << 10 // more than its fields can have, each byte escaped
)

// clip makes a caller's text short.
func clip(s string) string {
	if len(s) <= fieldBytesMax {
		return s
	}
	return strings.ToValidUTF8(s[:fieldBytesMax], "") + "…"
}

func stamp(at time.Time) string { return at.UTC().Format(time.RFC3339Nano) }

func (e *Entry) line(at time.Time) line {
	l := line{
		Time: stamp(at), Who: clip(e.Who), Token: clip(e.Token), From: clip(e.From), Port: e.Port, Does: clip(e.Does), On: clip(e.On),
		Decision: allowed, Code: clip(e.Code), Before: e.Before, After: e.After, Request: clip(e.Request),
	}
	if e.Denied {
		l.Decision = denied
	}
	return l
}

// link is where a chain has come to.
type link struct {
	seq  uint64
	hash string // of the line of that number
}

// origin is before the first line.
var origin = link{hash: strings.Repeat("0", 2*sha256.Size)}

const hashKey = `,"hash":"`

// closing is what follows the text that the hash is of: its key, itself, and the end.
const closingBytes = len(hashKey) + 2*sha256.Size + len("\"}")

// add appends the next line of the chain.
func (at link) add(to []byte, l line) ([]byte, link, error) {
	l.Seq, l.Prev = at.seq+1, at.hash
	text, err := json.Marshal(&l)
	if err != nil {
		return to, at, fmt.Errorf("encode line %d: %w", l.Seq, err)
	}
	text = text[:len(text)-1]
	sum := sha256.Sum256(text)
	next := link{l.Seq, hex.EncodeToString(sum[:])}
	to = append(to, text...)
	to = append(to, hashKey...)
	to = append(to, next.hash...)
	return append(to, "\"}\n"...), next, nil
}

// read is a line without its end, and where the chain has come to with it. It does not
// look at what was before.
func read(text []byte) (line, link, error) {
	if len(text) > lineBytesMax || len(text) <= closingBytes {
		return line{}, link{}, fmt.Errorf("it has %d bytes, which no line has", len(text))
	}
	head, tail := text[:len(text)-closingBytes], text[len(text)-closingBytes:]
	sum := sha256.Sum256(head)
	hash := hex.EncodeToString(sum[:])
	if string(tail) != hashKey+hash+"\"}" {
		return line{}, link{}, errors.New("its hash is not that of its text: it was changed")
	}
	d := json.NewDecoder(bytes.NewReader(append(head[:len(head):len(head)], '}')))
	d.DisallowUnknownFields()
	var l line
	if err := d.Decode(&l); err != nil {
		return line{}, link{}, fmt.Errorf("it is no line of an audit log: %w", err)
	}
	return l, link{l.Seq, hash}, nil
}

package access

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"time"
)

// A Token is what a policy knows of one: the hash of it, and what it is good for.
type Token struct {
	ID      string
	Hash    [sha256.Size]byte
	Roles   []string
	Scope   *Rule  // nothing beyond it; an empty list narrows nothing; nil = it is not narrowed
	Holder  string // the identities that may present it; "" = whoever has it
	Expires time.Time
}

// ErrToken says that a token is good for nothing. Why, whoever presents it is not
// told: he could find out which ids there are.
var ErrToken = errors.New("the token is not one that is good here: it is another cluster's, it has expired, or it was revoked")

// The form of a token: mark, id, "_", secret, sum. The mark and the sum let scanners find
// those that were put where they do not belong, and take nothing else for one. The sum
// says of one that was copied in part, or typed, that it is not whole; it is no secret.
const (
	tokenMark        = "smt_"
	tokenIDBytes     = 6  // at random; in hexadecimal digits, like the next
	tokenSecretBytes = 32 // at random: nobody finds it by trying, so its hash needs no salt
	tokenSumBytes    = 4  // the CRC-32 of all before it
	tokenLength      = len(tokenMark) + 2*tokenIDBytes + 1 + 2*tokenSecretBytes + 2*tokenSumBytes
)

// DrawToken makes a new token from a source of chance. Its hash is what is kept.
func DrawToken(random io.Reader) (id, token string, hash [sha256.Size]byte, err error) {
	var drawn [tokenIDBytes + tokenSecretBytes]byte
	if _, err := io.ReadFull(random, drawn[:]); err != nil {
		return "", "", hash, fmt.Errorf("draw a token: %w", err)
	}
	id = hex.EncodeToString(drawn[:tokenIDBytes])
	token = tokenMark + id + "_" + hex.EncodeToString(drawn[tokenIDBytes:])
	token += sumOf(token)
	return id, token, sha256.Sum256([]byte(token)), nil
}

// bootstrapMark is what the token that makes the first one begins with, in place of
// tokenMark and the id.
const bootstrapMark = "smb_"

// DrawBootstrap makes the token by which the first access token is made.
func DrawBootstrap(random io.Reader) (string, error) {
	var drawn [tokenSecretBytes]byte
	if _, err := io.ReadFull(random, drawn[:]); err != nil {
		return "", fmt.Errorf("draw a bootstrap token: %w", err)
	}
	token := bootstrapMark + hex.EncodeToString(drawn[:])
	return token + sumOf(token), nil
}

// IsBootstrap says whether a text is such a token, and whole.
func IsBootstrap(text string) bool {
	end := len(bootstrapMark) + 2*tokenSecretBytes
	return strings.HasPrefix(text, bootstrapMark) && len(text) == end+2*tokenSumBytes && text[end:] == sumOf(text[:end])
}

func sumOf(text string) string { return fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(text))) }

// TokenID is the part of a token that is no secret; "" when the text is none, or is not whole.
func TokenID(text string) string {
	rest, is := strings.CutPrefix(text, tokenMark)
	if end := tokenLength - 2*tokenSumBytes; !is || len(text) != tokenLength || text[end:] != sumOf(text[:end]) {
		return ""
	}
	id, _, _ := strings.Cut(rest, "_")
	return id
}

// OfToken is what whoever presents a token may do, be he somebody besides or not. He is
// by it nobody else: what the roles of his certificate allow does not count.
func (p *Policy) OfToken(text string, presenter Identity, now time.Time) (*Rights, error) {
	t := p.tokens[TokenID(text)]
	hash := sha256.Sum256([]byte(text))
	if t == nil || subtle.ConstantTimeCompare(hash[:], t.Hash[:]) != 1 || !now.Before(t.Expires) || !t.heldBy(presenter) {
		return nil, ErrToken
	}
	return p.kept(caller{token: t.ID}, func() *Rights { return p.ofToken(t) }), nil
}

func (p *Policy) ofToken(t *Token) *Rights {
	r := newRights("token "+t.ID, t.own())
	for _, role := range t.Roles {
		r.add(p.roles[role], "token "+t.ID)
	}
	if t.Scope != nil {
		r.scope = t.narrowing()
	}
	return r.seal()
}

// own is the namespace that the token is narrowed to, where that is one.
func (t *Token) own() string {
	if t.Scope == nil || len(t.Scope.Namespaces) != 1 || strings.HasSuffix(t.Scope.Namespaces[0], "*") || t.Scope.Namespaces[0] == Own {
		return ""
	}
	return t.Scope.Namespaces[0]
}

// narrowing is the scope as a rule in which an empty list is about everything.
func (t *Token) narrowing() *compiled {
	c := compile(t.Scope, "")
	c.verbs, c.resources = unlessEmpty(c.verbs), unlessEmpty(c.resources)
	if len(t.Scope.Namespaces) == 0 {
		c.namespaces = nil
	}
	return c
}

func unlessEmpty(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	return list
}

func (t *Token) heldBy(id Identity) bool {
	if t.Holder == "" {
		return true
	}
	if id.Role == "" {
		return false
	}
	for _, path := range [...]string{"/" + id.path(), id.String()} {
		if beginning, open := strings.CutSuffix(t.Holder, "*"); path == t.Holder || open && strings.HasPrefix(path, beginning) {
			return true
		}
	}
	return false
}

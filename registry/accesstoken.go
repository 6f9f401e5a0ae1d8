package registry

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
	"github.com/stellmap/stellmap/storage"
)

// An AccessToken is what is kept of one: never the token itself. It has roles of its
// own, and who presents it is by that nobody else.
type AccessToken struct {
	ID          string
	Hash        AccessTokenHash
	Description string
	Roles       []string
	Scope       *Rule  // the token is good for nothing beyond it; nil = it is not narrowed
	Holder      string // the identities that may present it; "" = whoever has it
	GrantedAt   int64  // Unix ms, like the next
	ExpiresAt   int64
	Revision    Revision // at which it was granted
	By          string
}

// An AccessTokenHash is the SHA-256 of a token. The token is random: nobody finds it
// by trying, so the hash needs no salt.
type AccessTokenHash [sha256.Size]byte

// A TokenGrant asks for an access token.
type TokenGrant struct {
	ID          string // that nobody else has; it is no secret
	Hash        AccessTokenHash
	Description string
	Roles       []string
	Scope       *Rule
	Holder      string
	TTLSeconds  int64 // 0 = a day
	By          string
}

// The bounds of access tokens. There is none that is good for ever: one that was
// lost without anybody knowing must end by itself.
const (
	accessTokensMax         = 16_384
	accessTokenTTLSeconds   = 24 * 60 * 60
	accessTokenTTLDaysMax   = 90
	accessTokenIDBytesMax   = 64
	accessTokenTTLSecsMax   = accessTokenTTLDaysMax * 24 * 60 * 60
	accessTokenTTLSecsLeast = 1
)

func (g TokenGrant) normalize(bad *problems) TokenGrant {
	if g.ID = strings.TrimSpace(g.ID); !isName(g.ID, "-") || len(g.ID) > accessTokenIDBytesMax {
		bad.add("id", fmt.Sprintf("%s is not allowed: letters, digits and '-', at most %d", quoted(g.ID), accessTokenIDBytesMax))
	}
	g.Description = saidText(g.Description, "description", descriptionBytesMax, bad)
	g.Roles = normalizeRoleNames(g.Roles, bad)
	if g.Scope != nil {
		scope := g.Scope.normalize("scope.", false, bad)
		if g.Scope = &scope; scope.Deny {
			bad.add("scope.deny", "is not allowed: a scope says what the token is good for; to take something away, bind a role that denies it")
		}
		if n := len(encode(scope.record())); n > accessBytesMax {
			bad.add("scope", fmt.Sprintf("takes %d bytes: at most %d, name the beginnings of names", n, accessBytesMax))
		}
	}
	if g.Holder != "" {
		g.Holder = normalizeSubject(g.Holder, "holder", bad)
		if strings.HasPrefix(g.Holder, bySubject) {
			bad.add("holder", quoted(g.Holder)+" cannot be one: who shows an access token shows no JWT; name who has a certificate")
		}
	}
	if g.TTLSeconds == 0 {
		g.TTLSeconds = accessTokenTTLSeconds
	}
	if g.TTLSeconds < accessTokenTTLSecsLeast || g.TTLSeconds > accessTokenTTLSecsMax {
		bad.add("ttlSeconds", fmt.Sprintf("%d is not allowed: %d to %d, which are %d days, or 0 for one day", g.TTLSeconds, accessTokenTTLSecsLeast, accessTokenTTLSecsMax, accessTokenTTLDaysMax))
	}
	g.By = saidText(g.By, "by", byBytesMax, bad)
	return g
}

// GrantToken makes an access token. The caller draws it and tells its hash: the
// token itself is neither in the log nor in a backup.
func (r *Registry) GrantToken(ctx context.Context, requestID string, g TokenGrant) (*AccessToken, Result, error) {
	var bad problems
	g = g.normalize(&bad)
	if err := bad.err(); err != nil {
		return nil, Result{}, err
	}
	if err := r.mayGrant(ctx, &g); err != nil {
		return nil, Result{}, err
	}
	token := &recordv1.AccessToken{Hash: g.Hash[:], Description: g.Description, Roles: g.Roles, Scope: g.Scope.record(), Holder: g.Holder}
	grant := &recordv1.GrantToken{Id: g.ID, Token: token, TtlMs: g.TTLSeconds * 1000, By: g.By, First: founds(ctx)}
	applied, reply, err := r.propose(ctx, requestID, encode(&recordv1.Command{Format: formatMax, Kind: &recordv1.Command_GrantToken{GrantToken: grant}}))
	if err != nil {
		return nil, Result{}, fmt.Errorf("grant access token %s: %w", quoted(g.ID), err)
	}
	switch reply.GetCode() {
	case recordv1.Result_CODE_QUOTA_FULL:
		return nil, applied, fullError("", reply.GetFull())
	case recordv1.Result_CODE_SEEN_OTHERWISE:
		return nil, applied, ErrNobody
	}
	granted := r.machine.accessToken(g.ID)
	if reply.GetCode() != recordv1.Result_CODE_OK || granted == nil || granted.Hash != g.Hash { // a request that came twice has the answer of the first
		return nil, applied, ErrTokenTold
	}
	return granted, applied, nil
}

// RevokeToken ends an access token.
func (r *Registry) RevokeToken(ctx context.Context, requestID, id string) (Result, error) {
	if err := Permit(ctx, Ask{Verb: VerbDeregister, Resource: ResourceTokens}); err != nil {
		return Result{}, err
	}
	command := &recordv1.Command{Format: formatMax, Kind: &recordv1.Command_RevokeToken{RevokeToken: &recordv1.RevokeToken{Id: id}}}
	if !isName(id, "-") || len(id) > accessTokenIDBytesMax {
		return Result{}, missingToken(id)
	}
	applied, reply, err := r.propose(ctx, requestID, encode(command))
	switch {
	case err != nil:
		return Result{}, fmt.Errorf("revoke access token %s: %w", quoted(id), err)
	case reply.GetCode() == recordv1.Result_CODE_NOT_FOUND:
		return applied, missingToken(id)
	}
	return applied, nil
}

func missingToken(id string) error {
	return &missingError{fmt.Sprintf("there is no access token %s: it never was, it was revoked, or it has expired", quoted(id))}
}

func (m *Machine) accessToken(id string) *AccessToken {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.published.access.tokens[id]
}

// grantToken makes room by those that have expired, so that nobody has to go through
// them at other times.
func (t *step) grantToken(g *recordv1.GrantToken) *recordv1.Result {
	tokens := t.state.access.tokens
	if tokens[g.GetId()] != nil {
		return &recordv1.Result{Code: recordv1.Result_CODE_VERSION_DIFFERS}
	}
	if g.GetFirst() && t.state.access.begun {
		return &recordv1.Result{Code: recordv1.Result_CODE_SEEN_OTHERWISE}
	}
	if len(tokens) >= accessTokensMax {
		for _, id := range tokens.expired(t.entry.Time) {
			t.dropToken(id)
		}
	}
	if len(tokens) >= accessTokensMax {
		return &recordv1.Result{Code: recordv1.Result_CODE_QUOTA_FULL, Full: &recordv1.Full{Of: recordv1.Full_OF_TOKENS, Limit: accessTokensMax}}
	}
	record := &recordv1.AccessTokenRecord{
		Format: formatMax, Token: g.GetToken(), GrantedAtMs: t.entry.Time, ExpiresAtMs: t.entry.Time + g.GetTtlMs(), Revision: uint64(t.entry.Index), By: g.GetBy(),
	}
	token, problem := accessTokenOf(g.GetId(), record)
	if problem != "" {
		panic(fmt.Sprintf("registry: the access token of entry %d of term %d %s", t.entry.Index, t.entry.Term, problem))
	}
	if !t.state.access.begun {
		t.batch.Set([]byte(storage.AccessBegunKey), encode(&recordv1.AccessBegunRecord{Format: formatMax, Revision: record.GetRevision()}))
	}
	t.batch.Set(storage.AccessTokenKey(token.ID), encode(record))
	t.change(change{op: opTokenPut, access: accessChange{name: token.ID, token: token}, silent: true})
	return &recordv1.Result{Code: recordv1.Result_CODE_OK, Created: true, Changed: true}
}

func (t *step) revokeToken(r *recordv1.RevokeToken) *recordv1.Result {
	if t.state.access.tokens[r.GetId()] == nil {
		return &recordv1.Result{Code: recordv1.Result_CODE_NOT_FOUND}
	}
	t.dropToken(r.GetId())
	return &recordv1.Result{Code: recordv1.Result_CODE_OK, Changed: true}
}

func (t *step) dropToken(id string) {
	t.batch.Delete(storage.AccessTokenKey(id))
	t.change(change{op: opTokenPut, access: accessChange{name: id}, silent: true})
}

// Expired says that a token's time is over.
func (a *AccessToken) Expired(now time.Time) bool { return now.UnixMilli() >= a.ExpiresAt }

// accessTokenOf reads a record; the problem is "" when it can be read.
func accessTokenOf(id string, record *recordv1.AccessTokenRecord) (*AccessToken, string) {
	spec := record.GetToken()
	a := &AccessToken{
		ID: id, Description: spec.GetDescription(), Roles: spec.GetRoles(), Scope: ruleOfRecord(spec.GetScope()), Holder: spec.GetHolder(),
		GrantedAt: record.GetGrantedAtMs(), ExpiresAt: record.GetExpiresAtMs(), Revision: Revision(record.GetRevision()), By: record.GetBy(),
	}
	if n := copy(a.Hash[:], spec.GetHash()); n != len(a.Hash) || len(spec.GetHash()) != n {
		return nil, fmt.Sprintf("has a hash of %d bytes, which this version does not know: run a newer version", len(spec.GetHash()))
	}
	return a, ""
}

func decodeAccessToken(id string, value []byte) (*AccessToken, error) {
	var record recordv1.AccessTokenRecord
	if err := unmarshalRecord(fmt.Sprintf("access token %q", id), value, &record); err != nil {
		return nil, err
	}
	a, problem := accessTokenOf(id, &record)
	if problem != "" {
		return nil, fmt.Errorf("access token %q %s", id, problem)
	}
	return a, nil
}

package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/stellmap/stellmap/access"
)

// The settings of JWTs.
const (
	jwtIssuerKey   = "auth.jwt_issuer"
	jwtAudienceKey = "auth.jwt_audience"
	jwtKeysKey     = "auth.jwt_keys_file"
	jwtSubjectKey  = "auth.jwt_subject_claim"
)

// wordMax bounds a name that somebody else has given.
const wordMax = 1_024

// checkWord says why a text is no such name, or "". "" is none, which is allowed.
func checkWord(value string) string {
	switch {
	case len(value) > wordMax:
		return fmt.Sprintf("has %d characters, at most %d", len(value), wordMax)
	case strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r > '~' }):
		return fmt.Sprintf("%q has characters other than printable ASCII without blanks", value)
	}
	return ""
}

// checkJWT: who vouches, for whom and by which keys are given together, and are of use where
// somebody is asked who he is.
func (l *loader) checkJWT(c Config) {
	given := []struct{ key, value string }{{jwtIssuerKey, c.Auth.JWTIssuer}, {jwtAudienceKey, c.Auth.JWTAudience}, {jwtKeysKey, c.Auth.JWTKeysFile}}
	some := false
	for _, g := range given {
		some = some || g.value != ""
	}
	for _, g := range given {
		if s := settingOf(g.key); some && g.value == "" {
			l.add(l.origin(s), "%s: missing; %s, %s and %s are given together", g.key, jwtIssuerKey, jwtAudienceKey, jwtKeysKey)
		} else if some && !c.authenticates() {
			l.add(l.origin(s), "%s: authentication is off, and nobody is asked for a JWT: set %s to %q", g.key, authModeKey, on)
		}
	}
	switch s := settingOf(jwtSubjectKey); {
	case c.Auth.JWTSubjectClaim == "":
		l.add(l.origin(s), "%s: empty; want the name of a claim, such as sub or email", jwtSubjectKey)
	case !some && l.origin(s) != "default":
		l.add(l.origin(s), "%s: without %s no JWT counts", jwtSubjectKey, jwtIssuerKey)
	}
}

// openIssuer reads the keys of who vouches for others; without a setting nobody does.
func (n *node) openIssuer() (err error) {
	c := n.config.Auth
	if c.JWTIssuer == "" {
		return nil
	}
	n.issuer, err = access.OpenIssuer(access.IssuerConfig{
		Issuer: c.JWTIssuer, Audience: c.JWTAudience, SubjectClaim: c.JWTSubjectClaim, KeysFile: c.JWTKeysFile,
		Logger: n.logger, Registerer: n.metrics,
	})
	if err != nil {
		return fmt.Errorf("%s: %w", jwtKeysKey, err)
	}
	return nil
}

// runIssuer keeps the keys current.
func (n *node) runIssuer(ctx context.Context) error {
	if n.issuer == nil {
		return nil
	}
	return n.issuer.Run(ctx)
}

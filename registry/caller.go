package registry

import (
	"context"
	"errors"
	"strings"
)

// An Ask is one thing that somebody wants to do. Its names are in normal form: what is
// asked for is what is done, however it was written.
type Ask struct {
	Verb      Verb
	Resource  Resource
	Namespace string // "" = of the whole cluster
	Service   string // "" = of no service
}

// String is as people say it.
func (a Ask) String() string {
	text := string(a.Verb) + " " + string(a.Resource)
	if a.Service != "" {
		text += " of service " + quoted(a.Service)
	}
	if a.Namespace != "" {
		text += " in namespace " + quoted(a.Namespace)
	}
	return text
}

// Rights are what somebody may do.
type Rights interface {
	// Allows says whether he may. It is asked of each item and each event.
	Allows(a Ask) bool
	// Stamp is the same for the same rights, whoever has them.
	Stamp() string
}

// A Caller is who asks, in the eyes of whoever decides about access. What it says is
// true at the moment, also of a caller who has stayed for long.
type Caller interface {
	Rights
	// Who is a name for people, logs and the history of documents.
	Who() string
	// AllowsSome says whether he may with any object of the kind: in the namespace of
	// the ask, or in any if it has none.
	AllowsSome(a Ask) bool
	// Held are his rights of the moment, which stay as they are; nil when he is nobody
	// any more. They are for what many who have the same rights share.
	Held() Rights
}

// Errors of access.
var (
	// ErrNobody says that it is not known who asks.
	ErrNobody = errors.New("registry: who asks is not known")
	// ErrDenied says that whoever asks may not.
	ErrDenied = errors.New("registry: denied")
)

// A DeniedError says what is missing. It does not say whether the object is there:
// what may not be seen looks like what is not.
type DeniedError struct {
	Who string
	Ask Ask
}

func (e *DeniedError) Error() string {
	return e.Who + " may not " + e.Ask.String() + ", whether it is there or not: a role has to allow it, and none deny it"
}

// Unwrap makes it an ErrDenied.
func (e *DeniedError) Unwrap() error { return ErrDenied }

type callerKey struct{}

// WithCaller has all that is done in a context be done for a caller. Without one
// nobody is asked: it is one of this process's own parties, or authentication is off.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// CallerOf is for whom something is done; nil when nobody is asked.
func CallerOf(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c
}

// Permit is nil when whoever a context is for may do something. The registry asks it
// of everything that it does for callers, by the names that it does it to; surfaces
// ask it of what is theirs.
func Permit(ctx context.Context, a Ask) error {
	if c := CallerOf(ctx); c != nil && !c.Allows(a) {
		return denied(c, a)
	}
	return nil
}

// KnownTo says whether whoever a context is for may know that a service is there: he may
// read its instances.
func (k ServiceKey) KnownTo(ctx context.Context) bool {
	return Permit(ctx, Ask{Verb: VerbRead, Resource: ResourceInstances, Namespace: k.Namespace, Service: k.Service}) == nil
}

// NameFor is a service in what is said to whoever a context is for about another one: what
// it is called only who may know that it is there is told.
func (k ServiceKey) NameFor(ctx context.Context) string {
	if !k.KnownTo(ctx) {
		return "service (you may not read which one)"
	}
	return "service " + k.Service + " in namespace " + k.Namespace
}

// PermitSome is Permit for any object of the kind.
func PermitSome(ctx context.Context, a Ask) error {
	if c := CallerOf(ctx); c != nil && !c.AllowsSome(a) {
		return denied(c, a)
	}
	return nil
}

// Known is ErrNobody when whoever a context is for is nobody any more.
func Known(ctx context.Context) error {
	if c := CallerOf(ctx); c != nil && c.Held() == nil {
		return ErrNobody
	}
	return nil
}

// byToken heads the name of a caller who has come by an access token.
const byToken = "token "

// NameOfToken is what a caller is called who presents an access token, by the part of it that is no secret.
func NameOfToken(id string) string { return byToken + id }

// bySubject heads the name of a caller for whom somebody else vouches, by a JWT.
const bySubject = "/jwt/"

// TokenOf is the name of who has come by something that he shows, as it is: by an access
// token or a JWT; "" of who is called otherwise.
func TokenOf(who string) string {
	if strings.HasPrefix(who, byToken) || strings.HasPrefix(who, bySubject) {
		return who
	}
	return ""
}

// denied is why a caller may not: what he came by may be good no more.
func denied(c Caller, a Ask) error {
	if c.Held() == nil {
		return ErrNobody
	}
	return &DeniedError{Who: c.Who(), Ask: a}
}

// permit is Permit for an instance.
func (k InstanceKey) permit(ctx context.Context, v Verb) error {
	return Permit(ctx, Ask{Verb: v, Resource: ResourceInstances, Namespace: k.Namespace, Service: k.Service})
}

// PermitForce is Permit for acting on an instance without its lease token.
func (ref InstanceRef) PermitForce(ctx context.Context) error {
	k, err := ref.key()
	if err != nil {
		return err
	}
	return k.permit(ctx, VerbOverride)
}

// Sees says whether who has some rights may be told of the instances of a service. Nil
// is of those who are not asked.
func Sees(by Rights, k ServiceKey) bool {
	return by == nil || by.Allows(AskToSee(k))
}

// AskToSee is what has to be allowed for that.
func AskToSee(k ServiceKey) Ask {
	return Ask{Verb: VerbRead, Resource: ResourceInstances, Namespace: k.Namespace, Service: k.Service}
}

// visible are the items of a list that a caller may be told of.
func visible[T any](ctx context.Context, all []T, ask func(T) Ask) []T {
	c := CallerOf(ctx)
	if c == nil {
		return all
	}
	out := all[:0:0]
	for _, one := range all {
		if c.Allows(ask(one)) {
			out = append(out, one)
		}
	}
	return out
}

package peer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	peerv1 "github.com/stellmap/stellmap/api/proto/stellmap/peer/v1"
)

// Members ask each other what each of them alone knows, such as its proxies. The
// leader has no part in it: any member asks any other, by the connection that
// consensus uses, so that both are who they say.

// An Answerer tells of this member. It changes nothing.
type Answerer interface {
	Answer(ctx context.Context, request []byte) ([]byte, error)
}

// A Subject is what a question is about; each has an Answerer of its own.
type Subject int32

// The subjects, as they are told.
const (
	Proxies = Subject(peerv1.AskRequest_SUBJECT_UNSPECIFIED) // that the member serves
	Regions = Subject(peerv1.AskRequest_SUBJECT_REGIONS)     // that the member follows, if it leads
)

// askConnectMax is how long a question waits for its connection: members that
// have had nothing to say to each other have none.
const askConnectMax = time.Second

// errNotIntroduced is answered to whoever this member has not accepted.
var errNotIntroduced = errors.New("peer: the caller was not introduced")

// Ask asks a member, and waits for its answer as long as ctx allows.
func (t *Transport) Ask(ctx context.Context, to uint64, about Subject, request []byte) ([]byte, error) {
	g := t.target(to)
	if g == nil {
		return nil, fmt.Errorf("node %d is not known", to)
	}
	client, err := g.reach(ctx)
	if err != nil {
		return nil, err
	}
	self := t.group.Introduce()
	reply, err := client.Ask(ctx, &peerv1.AskRequest{From: self.Member.ID, Uuid: self.Member.UUID, ClusterId: self.ClusterID, Subject: peerv1.AskRequest_Subject(about), Data: request})
	switch {
	case status.Code(err) == codes.Unimplemented:
		return nil, fmt.Errorf("node %d is of a version that answers no such questions", to)
	case err != nil:
		return nil, fmt.Errorf("ask node %d: %w", to, err)
	case reply.GetRefusal() != "":
		return nil, fmt.Errorf("node %d: %s", to, reply.GetRefusal())
	}
	return reply.GetData(), nil
}

// reach waits until the peer can be called.
func (g *target) reach(ctx context.Context) (peerv1.PeerServiceClient, error) {
	ctx, cancel := context.WithTimeout(ctx, askConnectMax)
	defer cancel()
	g.mu.Lock()
	g.callers++
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		g.callers--
		g.mu.Unlock()
	}()
	select {
	case g.wake <- struct{}{}:
	default: // a token is there already
	}
	for {
		g.mu.Lock()
		joined := g.joined
		g.mu.Unlock()
		if client := g.connected(); client != nil {
			return client, nil
		}
		select {
		case <-joined:
		case <-ctx.Done():
			return nil, fmt.Errorf("node %d is not connected", g.id)
		}
	}
}

// Ask answers another member.
func (s *service) Ask(ctx context.Context, r *peerv1.AskRequest) (*peerv1.AskResponse, error) {
	if err := s.proved(ctx, r.GetFrom()); err != nil {
		return nil, err
	}
	if r.GetClusterId() != s.transport.group.Introduce().ClusterID || !s.transport.group.Known(r.GetFrom(), r.GetUuid()) {
		return &peerv1.AskResponse{Refusal: errNotIntroduced.Error()}, nil
	}
	answerer := s.transport.answerers[Subject(r.GetSubject())]
	if answerer == nil {
		return nil, status.Error(codes.Unimplemented, "this node answers no such questions")
	}
	data, err := answerer.Answer(ctx, r.GetData())
	if err != nil {
		return &peerv1.AskResponse{Refusal: err.Error()}, nil
	}
	return &peerv1.AskResponse{Data: data}, nil
}

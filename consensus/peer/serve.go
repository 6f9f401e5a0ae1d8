package peer

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	peerv1 "github.com/stellmap/stellmap/api/proto/stellmap/peer/v1"
	"github.com/stellmap/stellmap/consensus"
)

// service is what the other members call.
type service struct {
	peerv1.UnimplementedPeerServiceServer
	transport *Transport
}

// Hello answers a member's introduction with this one's, and with why not when
// it is refused.
func (s *service) Hello(ctx context.Context, r *peerv1.HelloRequest) (*peerv1.HelloResponse, error) {
	if err := s.proved(ctx, r.GetIntroduction().GetMember().GetId()); err != nil {
		return nil, err
	}
	own := s.transport.group.Introduce()
	answer := &peerv1.HelloResponse{Introduction: introductionTo(own)}
	if r.GetTo() != own.Member.ID {
		answer.Refusal = &peerv1.Refusal{Reason: peerv1.Refusal_REASON_ID, Text: "another node was meant"}
		return answer, nil
	}
	refusal, err := s.greet(ctx, r.GetIntroduction())
	answer.Refusal = refusal
	return answer, err
}

// proved looks at who calls before anything is done for it, or told to it.
func (s *service) proved(ctx context.Context, id uint64) error {
	if err := s.transport.config.Proves(ctx, id); err != nil {
		s.transport.log.Warn("a caller is not the node that it says", "node", id, "error", err)
		return status.Error(codes.PermissionDenied, err.Error())
	}
	return nil
}

// greet tells a refusal from a fault of this member.
func (s *service) greet(ctx context.Context, i *peerv1.Introduction) (*peerv1.Refusal, error) {
	if err := s.proved(ctx, i.GetMember().GetId()); err != nil {
		return nil, err
	}
	err := s.transport.group.Greet(introductionOf(i))
	var r *consensus.Refusal
	switch {
	case err == nil:
		return nil, nil
	case errors.As(err, &r):
		s.transport.log.Warn("node refused", "node", i.GetMember().GetId(), "reason", r.Text)
		return &peerv1.Refusal{Reason: refusalReason(r.Reason), Text: r.Text}, nil
	}
	s.transport.log.Error("greet a node", "node", i.GetMember().GetId(), "error", err)
	return nil, status.Error(codes.Internal, "this node is ending")
}

// Messages takes in a stream. All its messages are from the member that it
// begins with.
func (s *service) Messages(stream grpc.ClientStreamingServer[peerv1.MessagesRequest, peerv1.MessagesResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	refusal, err := s.greet(stream.Context(), first.GetIntroduction())
	if err != nil {
		return err
	}
	if refusal != nil {
		return status.Error(codes.PermissionDenied, refusal.GetText())
	}
	from := first.GetIntroduction().GetMember().GetId()
	s.transport.group.HearLow(from, first.GetLowSpace())
	for {
		r, err := stream.Recv()
		if err != nil {
			return err
		}
		s.transport.metrics.received.Add(float64(len(r.GetMessages())))
		s.transport.group.HearLow(from, r.GetLowSpace())
		if err := s.transport.group.Receive(from, r.GetMessages()); err != nil {
			s.transport.log.Warn("stream ended for what it brought", "node", from, "error", err)
			return status.Error(codes.InvalidArgument, err.Error())
		}
	}
}

// Forward does what a follower asks of its leader.
func (s *service) Forward(ctx context.Context, r *peerv1.ForwardRequest) (*peerv1.ForwardResponse, error) {
	if err := s.proved(ctx, r.GetFrom()); err != nil {
		return nil, err
	}
	if r.GetClusterId() != s.transport.group.Introduce().ClusterID || !s.transport.group.Known(r.GetFrom(), r.GetUuid()) {
		return &peerv1.ForwardResponse{Code: peerv1.ForwardResponse_CODE_NOT_LEADER, Text: "the caller was not introduced"}, nil
	}
	kind, known := forwardKindOf(r.GetKind())
	if !known {
		return &peerv1.ForwardResponse{Code: peerv1.ForwardResponse_CODE_INVALID, Text: "a call of this kind is not known to this version"}, nil
	}
	reply, err := s.transport.group.HandleForward(ctx, consensus.ForwardRequest{Kind: kind, RequestID: r.GetRequestId(), Data: r.GetData()})
	if err != nil {
		return &peerv1.ForwardResponse{Code: codeOf(kind, err), Text: err.Error()}, nil
	}
	return &peerv1.ForwardResponse{Code: peerv1.ForwardResponse_CODE_OK, Index: reply.Index, Data: reply.Data}, nil
}

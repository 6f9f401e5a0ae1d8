package peer

import (
	"errors"
	"fmt"

	peerv1 "github.com/stellmap/stellmap/api/proto/stellmap/peer/v1"
	"github.com/stellmap/stellmap/consensus"
)

func introductionTo(i consensus.Introduction) *peerv1.Introduction {
	m := i.Member
	return &peerv1.Introduction{
		ClusterId: i.ClusterID, Founders: i.Founders, Incarnation: i.Incarnation,
		Member: &peerv1.Member{Id: m.ID, Uuid: m.UUID, Http: m.HTTP, Xds: m.XDS, Grpc: m.GRPC, Admin: m.Admin, Since: m.Since},
	}
}

func introductionOf(p *peerv1.Introduction) consensus.Introduction {
	m := p.GetMember()
	return consensus.Introduction{
		ClusterID: p.GetClusterId(), Founders: p.GetFounders(), Incarnation: p.GetIncarnation(),
		Member: consensus.Member{ID: m.GetId(), UUID: m.GetUuid(), HTTP: m.GetHttp(), XDS: m.GetXds(), GRPC: m.GetGrpc(), Admin: m.GetAdmin(), Since: m.GetSince()},
	}
}

// sameReason pairs the reasons of refusals.
var sameReason = [...]struct {
	reason consensus.RefusalReason
	wire   peerv1.Refusal_Reason
}{
	{consensus.RefusedID, peerv1.Refusal_REASON_ID}, // also for those that this version does not know
	{consensus.RefusedCluster, peerv1.Refusal_REASON_CLUSTER},
	{consensus.RefusedUUID, peerv1.Refusal_REASON_UUID},
	{consensus.RefusedRemoved, peerv1.Refusal_REASON_REMOVED},
}

func refusalReason(r consensus.RefusalReason) peerv1.Refusal_Reason {
	for _, pair := range sameReason {
		if pair.reason == r {
			return pair.wire
		}
	}
	return sameReason[0].wire
}

func refusalReasonOf(r peerv1.Refusal_Reason) consensus.RefusalReason {
	for _, pair := range sameReason {
		if pair.wire == r {
			return pair.reason
		}
	}
	return sameReason[0].reason
}

// sameKind pairs the kinds of forwarded calls.
var sameKind = [...]struct {
	kind consensus.ForwardKind
	wire peerv1.ForwardRequest_Kind
}{
	{consensus.ForwardPropose, peerv1.ForwardRequest_KIND_PROPOSE},
	{consensus.ForwardAsk, peerv1.ForwardRequest_KIND_ASK},
	{consensus.ForwardMembers, peerv1.ForwardRequest_KIND_MEMBERS},
	{consensus.ForwardChecked, peerv1.ForwardRequest_KIND_CHECKED},
}

func forwardKind(k consensus.ForwardKind) peerv1.ForwardRequest_Kind {
	for _, pair := range sameKind {
		if pair.kind == k {
			return pair.wire
		}
	}
	return peerv1.ForwardRequest_KIND_UNSPECIFIED
}

// forwardKindOf is false for a kind that this version does not know.
func forwardKindOf(k peerv1.ForwardRequest_Kind) (consensus.ForwardKind, bool) {
	for _, pair := range sameKind {
		if pair.wire == k {
			return pair.kind, true
		}
	}
	return 0, false
}

// sameMeaning pairs errors with their codes. Of two that match, the first counts.
var sameMeaning = [...]struct {
	err  error
	code peerv1.ForwardResponse_Code
}{
	{consensus.ErrUnknownOutcome, peerv1.ForwardResponse_CODE_UNKNOWN_OUTCOME},
	{consensus.ErrNotLeader, peerv1.ForwardResponse_CODE_NOT_LEADER},
	{consensus.ErrNoLeader, peerv1.ForwardResponse_CODE_NOT_LEADER},
	{consensus.ErrStopped, peerv1.ForwardResponse_CODE_NOT_LEADER},
	{consensus.ErrBusy, peerv1.ForwardResponse_CODE_BUSY},
	{consensus.ErrFull, peerv1.ForwardResponse_CODE_FULL},
	{consensus.ErrDiverged, peerv1.ForwardResponse_CODE_DIVERGED},
	{consensus.ErrTooLarge, peerv1.ForwardResponse_CODE_INVALID},
}

// codeOf is the code of an error. A machine's answer to a question may be any
// error; of a proposal, one that is not known leaves the outcome open.
func codeOf(kind consensus.ForwardKind, err error) peerv1.ForwardResponse_Code {
	for _, pair := range sameMeaning {
		if errors.Is(err, pair.err) {
			return pair.code
		}
	}
	if kind == consensus.ForwardAsk {
		return peerv1.ForwardResponse_CODE_ANSWER
	}
	return peerv1.ForwardResponse_CODE_UNKNOWN_OUTCOME
}

// errorOf is the error of a code, with the other member's text.
func errorOf(r *peerv1.ForwardResponse) error {
	switch r.GetCode() {
	case peerv1.ForwardResponse_CODE_OK:
		return nil
	case peerv1.ForwardResponse_CODE_NOT_LEADER:
		return fmt.Errorf("%w: %s", consensus.ErrNotLeader, r.GetText())
	case peerv1.ForwardResponse_CODE_BUSY:
		return fmt.Errorf("%w: %s", consensus.ErrBusy, r.GetText())
	case peerv1.ForwardResponse_CODE_FULL:
		return fmt.Errorf("%w: %s", consensus.ErrFull, r.GetText())
	case peerv1.ForwardResponse_CODE_DIVERGED:
		return fmt.Errorf("%w: %s", consensus.ErrDiverged, r.GetText())
	case peerv1.ForwardResponse_CODE_INVALID:
		return fmt.Errorf("%w: %s", consensus.ErrTooLarge, r.GetText())
	case peerv1.ForwardResponse_CODE_ANSWER:
		return errors.New(r.GetText())
	}
	return fmt.Errorf("%w: %s", consensus.ErrUnknownOutcome, r.GetText())
}

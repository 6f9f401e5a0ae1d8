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
		Member: &peerv1.Member{Id: m.ID, Uuid: m.UUID, Http: m.HTTP, Xds: m.XDS, Grpc: m.GRPC, Admin: m.Admin},
	}
}

func introductionOf(p *peerv1.Introduction) consensus.Introduction {
	m := p.GetMember()
	return consensus.Introduction{
		ClusterID: p.GetClusterId(), Founders: p.GetFounders(), Incarnation: p.GetIncarnation(),
		Member: consensus.Member{ID: m.GetId(), UUID: m.GetUuid(), HTTP: m.GetHttp(), XDS: m.GetXds(), GRPC: m.GetGrpc(), Admin: m.GetAdmin()},
	}
}

func refusalReason(r consensus.RefusalReason) peerv1.Refusal_Reason {
	switch r {
	case consensus.RefusedCluster:
		return peerv1.Refusal_REASON_CLUSTER
	case consensus.RefusedUUID:
		return peerv1.Refusal_REASON_UUID
	}
	return peerv1.Refusal_REASON_ID
}

func forwardKind(k consensus.ForwardKind) peerv1.ForwardRequest_Kind {
	switch k {
	case consensus.ForwardAsk:
		return peerv1.ForwardRequest_KIND_ASK
	case consensus.ForwardChecked:
		return peerv1.ForwardRequest_KIND_CHECKED
	}
	return peerv1.ForwardRequest_KIND_PROPOSE
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

package registry

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
)

// commandItemsMax bounds what one command that the registry makes by itself may do.
const commandItemsMax = 128

func registerCommand(r Registration) []byte {
	item := &recordv1.RegisterItem{Key: keyToRecord(r.instanceKey()), Spec: specOf(r), Proof: r.Holder.proof(), LeaseId: r.LeaseID}
	if r.LeaseToken != "" {
		item.Token = hashOf(r.LeaseToken).record()
	}
	register := &recordv1.Register{Items: []*recordv1.RegisterItem{item}}
	return encode(&recordv1.Command{Format: formatMax, Kind: &recordv1.Command_Register{Register: register}})
}

func deregisterCommand(k InstanceKey, by Holder) []byte {
	deregister := &recordv1.Deregister{Keys: []*recordv1.InstanceKey{keyToRecord(k)}, Proofs: [][]byte{by.proof()}}
	return encode(&recordv1.Command{Format: formatMax, Kind: &recordv1.Command_Deregister{Deregister: deregister}})
}

func renewCommand(r *pendingRenewal) []byte {
	renew := &recordv1.Renew{Items: []*recordv1.RenewItem{r.record()}}
	return encode(&recordv1.Command{Format: formatMax, Kind: &recordv1.Command_Renew{Renew: renew}})
}

func expireCommand(term uint64, due []dueLease) []byte {
	expire := &recordv1.Expire{Term: term}
	for _, d := range due {
		expire.Items = append(expire.Items, &recordv1.ExpireItem{Key: keyToRecord(d.key), Lease: uint64(d.generation)})
	}
	return encode(&recordv1.Command{Format: formatMax, Kind: &recordv1.Command_Expire{Expire: expire}})
}

func reapCommand(services []ServiceKey) []byte {
	reap := &recordv1.Reap{}
	for _, k := range services {
		reap.Services = append(reap.Services, &recordv1.ServiceKey{Namespace: k.Namespace, Service: k.Service})
	}
	return encode(&recordv1.Command{Format: formatMax, Kind: &recordv1.Command_Reap{Reap: reap}})
}

// Grows tells whether a command makes the state larger. One that this version
// cannot read does: what is not known is not let in when room is scarce.
func Grows(command []byte) bool {
	var c recordv1.Command
	if err := proto.Unmarshal(command, &c); err != nil {
		return true
	}
	grows, _ := growing(&c)
	return grows
}

// growing decides for each kind. What has to go on while disks are nearly full
// is what makes room, and leases: an instance that could not be renewed would
// be lost to all who call it. Who may do what has to be decided then, too, by those
// who come to make room, and it is little and bounded.
func growing(c *recordv1.Command) (grows, decided bool) {
	switch c.GetKind().(type) {
	case *recordv1.Command_Register, *recordv1.Command_GrantLease, *recordv1.Command_EditPolicy, *recordv1.Command_EditUpstreams,
		*recordv1.Command_EditNamespace, *recordv1.Command_ImportChanges:
		return true, true
	case *recordv1.Command_Deregister, *recordv1.Command_Renew, *recordv1.Command_Expire, *recordv1.Command_Reap, *recordv1.Command_SetConditions,
		*recordv1.Command_Checkpoint, *recordv1.Command_RevokeLease, *recordv1.Command_Protect, *recordv1.Command_JudgeReports, *recordv1.Command_ControlRegion,
		*recordv1.Command_EditRole, *recordv1.Command_EditBinding, *recordv1.Command_GrantToken, *recordv1.Command_RevokeToken,
		*recordv1.Command_AgeRegion:
		return false, true
	}
	return true, false
}

func keyToRecord(k InstanceKey) *recordv1.InstanceKey {
	return &recordv1.InstanceKey{Namespace: k.Namespace, Service: k.Service, Id: k.ID}
}

func keyOfRecord(k *recordv1.InstanceKey) InstanceKey {
	return InstanceKey{Namespace: k.GetNamespace(), Service: k.GetService(), ID: k.GetId()}
}

// decodeReply reads what Apply answered to a command of one item.
func decodeReply(b []byte) (*recordv1.Result, error) {
	results, err := decodeReplies(b, 1)
	if err != nil {
		return nil, err
	}
	return results[0], nil
}

// decodeReplies reads what Apply answered to a command of so many items.
func decodeReplies(b []byte, items int) ([]*recordv1.Result, error) {
	var reply recordv1.Reply
	if err := proto.Unmarshal(b, &reply); err != nil {
		return nil, fmt.Errorf("decode the reply of a command: %w", err)
	}
	if len(reply.GetResults()) != items {
		return nil, fmt.Errorf("the reply of a command has %d results for %d items", len(reply.GetResults()), items)
	}
	return reply.GetResults(), nil
}

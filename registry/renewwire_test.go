package registry

import (
	"reflect"
	"strconv"
	"testing"

	"google.golang.org/protobuf/proto"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
	"github.com/stellmap/stellmap/internal/corpus"
)

// askedByProto is a question as package proto reads it; false when that does not take it for one to renew leases.
func askedByProto(request []byte) ([]leaseRenewal, bool) {
	var ask recordv1.Ask
	if proto.Unmarshal(request, &ask) != nil || ask.GetRenewLeases() == nil {
		return nil, false
	}
	return leaseRenewals(ask.GetRenewLeases().GetItems()), true
}

func questionsToRenew() (all [][]*pendingRenewal) {
	all = append(all, nil)
	for size := range 4 {
		var batch []*pendingRenewal
		for n := range 100 * size {
			p := &pendingRenewal{key: orders(strconv.Itoa(n)), ttlMs: int64(n % 3 * 40_000), by: Holder{Asked: n%2 == 0, Token: "token-" + strconv.Itoa(n)}}
			if n%7 == 0 {
				p.key = sharedKey(strconv.Itoa(n))
			}
			batch = append(batch, p)
		}
		all = append(all, batch)
	}
	return all
}

// TestQuestionsToRenewAreWhatProtoMakesOfThem shows that what is written by hand is
// the message that it stands for, and is read alike.
func TestQuestionsToRenewAreWhatProtoMakesOfThem(t *testing.T) {
	for _, batch := range questionsToRenew() {
		request := appendAskToRenew(nil, batch)
		want, known := askedByProto(request)
		got, ok := readAskToRenew(request)
		if !known || !ok || len(got) != len(batch) || len(want) != len(batch) {
			t.Fatalf("of %d renewals package proto reads %d (%v), and we %d (%v)", len(batch), len(want), known, len(got), ok)
		}
		for i, p := range batch {
			mustEqual(t, "the message of an item", proto.Equal(p.record(), recordOfAsked(want[i])), true)
			if !reflect.DeepEqual(got[i], want[i]) {
				t.Fatalf("%+v is read, of %+v", got[i], want[i])
			}
		}
	}
	others := []*recordv1.Ask{
		{Format: formatMax, Kind: &recordv1.Ask_ShareChecks{ShareChecks: &recordv1.ShareChecks{Member: 1}}},
		{Format: formatMax + 1, Kind: &recordv1.Ask_RenewLeases{RenewLeases: &recordv1.RenewLeases{}}},
		{},
	}
	for _, ask := range others {
		if _, ok := readAskToRenew(encode(ask)); ok {
			t.Errorf("%v is taken for a question to renew", ask)
		}
	}
	request := appendAskToRenew(nil, questionsToRenew()[4])
	if n := testing.AllocsPerRun(20, func() { readAskToRenew(request) }); n > 15 {
		t.Errorf("300 renewals are read with %v allocations", n)
	}
}

func recordOfAsked(a leaseRenewal) *recordv1.RenewItem {
	return &recordv1.RenewItem{Key: keyToRecord(a.key), LeaseTtlMs: a.ttl.Milliseconds(), Proof: a.proof}
}

// FuzzAskToRenew shows that what is read by hand is read as package proto reads it.
func FuzzAskToRenew(f *testing.F) {
	questions := questionsToRenew()
	for _, batch := range questions[:3] {
		f.Add(appendAskToRenew(nil, batch))
	}
	corpus.Add(f, "none", appendAskToRenew(nil, nil))
	corpus.Add(f, "three of one holder", appendAskToRenew(nil, questions[2][1:4]))
	corpus.Add(f, "cut off", appendAskToRenew(nil, questions[2][1:4])[:40])
	f.Fuzz(func(t *testing.T, request []byte) { mustBeAskedAlike(t, request) })
}

// TestBrokenQuestionsToRenew breaks good ones everywhere.
func TestBrokenQuestionsToRenew(t *testing.T) {
	random := newRandom(t)
	for _, batch := range questionsToRenew()[:3] {
		good := appendAskToRenew(nil, batch)
		for range 20_000 {
			request := append([]byte(nil), good[:len(good)-random.IntN(2)*random.IntN(len(good))]...)
			for range random.IntN(3) {
				if len(request) > 0 {
					request[random.IntN(len(request))] = byte(random.IntN(256))
				}
			}
			mustBeAskedAlike(t, request)
		}
	}
}

func mustBeAskedAlike(t *testing.T, request []byte) {
	t.Helper()
	got, ok := readAskToRenew(request)
	want, known := askedByProto(request)
	if !ok || !known { // package proto refuses texts that are not UTF-8, which nobody has registered
		return
	}
	if len(got) != len(want) {
		t.Fatalf("%x has %d renewals, of %d", request, len(got), len(want))
	}
	for i := range got {
		if got[i].key != want[i].key || got[i].ttl != want[i].ttl || string(got[i].proof) != string(want[i].proof) {
			t.Fatalf("%x: %+v is read, of %+v", request, got[i], want[i])
		}
	}
}

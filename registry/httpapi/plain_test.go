package httpapi

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/stellmap/stellmap/internal/corpus"
)

// FuzzPlainRenewals shows that what is read without encoding/json is read as that reads it.
func FuzzPlainRenewals(f *testing.F) {
	for _, body := range plainBodies() {
		f.Add(body)
	}
	corpus.Add(f, "three renewals", batchOf(3))
	corpus.Add(f, "a number too large", `{"items":[{"renew":{"namespace":"n","service":"s","instanceId":"i","leaseTtlSeconds":9223372036854775808}}]}`)
	corpus.Add(f, "the same key twice", `{"items":[{"renew":{"namespace":"n","service":"s","service":"t","instanceId":"i"}}]}`)
	corpus.Add(f, "a comma too many", `{"items":[{"renew":{"service":"s"}},]}`)
	f.Fuzz(mustBeReadAlike)
}

// TestPlainRenewalsAgreeWithJSON breaks good bodies in many places: whatever is
// still read without encoding/json is read as that reads it.
func TestPlainRenewalsAgreeWithJSON(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	pieces := append(strings.Split("{,},[,],:,\",\\,0,1,-,e,., ,\t,renew,register,service,null,true,é,\x00,\xff,\",\",{}", ","), ",")
	for _, body := range plainBodies() {
		mustBeReadAlike(t, body)
		for range 3_000 {
			at := random.IntN(len(body) + 1)
			end := min(len(body), at+random.IntN(4))
			mustBeReadAlike(t, body[:at]+pieces[random.IntN(len(pieces))]+body[end:])
		}
	}
}

// TestRenewalsArePlain shows that the batches of all clients there are take the short way.
func TestRenewalsArePlain(t *testing.T) {
	for _, body := range plainBodies()[:4] {
		if _, ok := plainRenewals(body); !ok {
			t.Errorf("%s is not read by itself", body)
		}
	}
	thousand := batchOf(1_000)
	if n := testing.AllocsPerRun(10, func() { plainRenewals(thousand) }); n > 3 {
		t.Errorf("a batch of a thousand takes %v allocations", n)
	}
}

func plainBodies() []string {
	return []string{
		batchOf(1),
		batchOf(3),
		"\n{ \"items\" : [\t{ \"renew\" : { \"service\" : \"a.b\" , \"namespace\":\"prod\", \"instanceId\":\"i\", \"leaseTtlSeconds\" : 30 } } ] }\r\n",
		`{"items":[{"renew":{"namespace":"renew","instanceId":"renew","service":"s"}}]}`,
		`{"items":[{"renew":{"namespace":"n","service":"s","instanceId":"i","leaseTtlSeconds":007}}]}`,
		`{"items":[{"renew":{"namespace":"n","service":"s","service":"t","instanceId":"i","leaseTtlSeconds":9223372036854775808}}]}`,
		`{"items":[{"renew":{}},{"renew":null},{"deregister":{"service":"s"},"renew":{"service":"s"}}]}`,
		`{"items":[{"renew":{"Service":"s"}}],"items":[]}`,
		`{"items":[{"renew":{"service":"s"}},]}`,
	}
}

func mustBeReadAlike(t *testing.T, body string) {
	t.Helper()
	got, ok := plainRenewals(body)
	if !ok {
		return
	}
	var want v2BatchBody
	if err := decodeBytes([]byte(body), &want); err != nil {
		t.Fatalf("%q is taken, and encoding/json says %v", body, err)
	}
	if !reflect.DeepEqual(got, want.Items) {
		t.Fatalf("%q is read as %+v, and by encoding/json as %+v", body, got, want.Items)
	}
}

// TestBatchResultsAgreeWithJSON shows that results are written as their type, which clients are told of, has them.
func TestBatchResultsAgreeWithJSON(t *testing.T) {
	failed := &v2BatchError{Index: 3, problem: problemAlone(invalid("items[3]", `is "<bad>"`))}
	for _, r := range []v2BatchResult{
		{Status: "renewed", Revision: 7},
		{Status: "renewed", Revision: 7, v2Granted: v2Granted{60}},
		{Status: "created", Revision: 8, LeaseToken: ownToken},
		{Status: "error", Error: failed},
	} {
		want, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		e := &encoder{}
		e.batchResult(r)
		mustEqual(t, "a result", string(e.b), string(want))
	}
}

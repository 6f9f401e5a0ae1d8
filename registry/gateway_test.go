package registry

import (
	"fmt"
	"testing"
)

// TestGatewaysTakeNoProtection shows that instances which are handed out since too few of their
// service are well are so beside gateways, too, which stand among them by their own ids.
func TestGatewaysTakeNoProtection(t *testing.T) {
	of := func(id, region string) *Instance {
		return &Instance{Origin: &Origin{Region: region}, ID: id, Status: StatusCritical}
	}
	z, remote := of("z", "here"), of("b/200/x", "b")
	s := &Service{Protected: &Protection{}, Shown: []*Instance{remote, z}}
	var gateways []*Instance
	for n := range 3 {
		gateways = append(gateways, of(fmt.Sprintf("b/200/g%d", n), "b"))
	}
	led := s.Instead("here", gateways)
	mustEqual(t, "how many are shown", len(led.Shown), 4)
	mustEqual(t, "whether the region's own is handed out", led.HandsOut(z), true)
	mustEqual(t, "whether another region's is there", led.HandsOut(remote), false)
}

package xds

import (
	"fmt"

	commonfaultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/fault/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/stellmap/stellmap/registry"
)

const faultFilterName = "envoy.filters.http.fault"

// faultFilter does what a route says of faults. It is in every listener, since one that
// gets it with the first fault would have all its connections drained; it is disabled but where a
// route has a fault, so that no other request passes through it.
func faultFilter() (*hcmv3.HttpFilter, error) {
	packed, err := pack(&faultv3.HTTPFault{})
	if err != nil {
		return nil, fmt.Errorf("faults: %w", err)
	}
	return &hcmv3.HttpFilter{
		Name: faultFilterName, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: packed}, Disabled: true,
	}, nil
}

// faultOf is what a route says to the filter; nil for nothing.
func faultOf(f *registry.Fault) (map[string]*anypb.Any, error) {
	if f == nil {
		return nil, nil
	}
	fault := new(faultv3.HTTPFault)
	if f.DelayMs != nil {
		fault.Delay = &commonfaultv3.FaultDelay{
			FaultDelaySecifier: &commonfaultv3.FaultDelay_FixedDelay{FixedDelay: milliseconds(*f.DelayMs)}, Percentage: percentOr(f.DelayPercent, 100),
		}
	}
	if f.AbortStatus != nil {
		fault.Abort = &faultv3.FaultAbort{
			ErrorType: &faultv3.FaultAbort_HttpStatus{HttpStatus: uint32(*f.AbortStatus)}, Percentage: percentOr(f.AbortPercent, 100),
		}
	}
	packed, err := pack(fault)
	if err != nil {
		return nil, fmt.Errorf("fault: %w", err)
	}
	return map[string]*anypb.Any{faultFilterName: packed}, nil
}

// percentOr is a share in percent, or its default.
func percentOr(percent *int64, otherwise int64) *typev3.FractionalPercent {
	if percent != nil {
		otherwise = *percent
	}
	return &typev3.FractionalPercent{Numerator: uint32(otherwise), Denominator: typev3.FractionalPercent_HUNDRED}
}

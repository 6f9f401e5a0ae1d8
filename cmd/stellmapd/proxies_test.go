package main

import (
	"slices"
	"testing"

	"github.com/stellmap/stellmap/registry/httpapi"
	"github.com/stellmap/stellmap/xds"
)

// The words by which proxies are asked for are those that they are told by.
func TestProxiesHaveOneVocabulary(t *testing.T) {
	if !slices.Equal(httpapi.ProxyStates, xds.ProxyStates) {
		t.Errorf("the HTTP port knows the states %v, the xDS port %v", httpapi.ProxyStates, xds.ProxyStates)
	}
	if !slices.Equal(httpapi.ProxyResourceStates, xds.ResourceStates) || !slices.Equal(httpapi.ProxyTypes, xds.TypeNames) {
		t.Errorf("the HTTP port knows %v and %v, the xDS port %v and %v", httpapi.ProxyTypes, httpapi.ProxyResourceStates, xds.TypeNames, xds.ResourceStates)
	}
	if httpapi.ProxyResourcesMax != xds.ProxyResourcesMax {
		t.Errorf("the HTTP port shows %d resources, the xDS port %d", httpapi.ProxyResourcesMax, xds.ProxyResourcesMax)
	}
	if httpapi.PropagationWaitMax != xds.PropagationMax || httpapi.ProxyPageMax != xds.ProxyPageMax {
		t.Errorf("the HTTP port waits %v for propagation and shows %d proxies, the xDS port %v and %d",
			httpapi.PropagationWaitMax, httpapi.ProxyPageMax, xds.PropagationMax, xds.ProxyPageMax)
	}
}

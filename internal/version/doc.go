// Package version says which StellMap this is, for --version, banners, the
// member list and the User-Agent of stellmapctl.
package version

// Number is the version of both binaries. A release sets it when it links:
//
//	go build -ldflags "-X github.com/stellmap/stellmap/internal/version.Number=1.2.3"
var Number = "0.1.0-dev"

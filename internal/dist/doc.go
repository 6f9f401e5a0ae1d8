// Command dist builds what a release has: static binaries, what they are made of as
// CycloneDX and SPDX, and checksums. Each binary is built twice, of two checkouts in
// different folders and with build caches of their own, and both must be the same to the
// byte. What they are made of is read out of the binaries themselves.
//
//	go run ./internal/dist bin/dist 1.2.3
package main

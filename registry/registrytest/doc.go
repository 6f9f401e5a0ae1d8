// Package registrytest is what a registry stands on in tests of the rooms above it: a
// log without consensus, which commits at once. The product does not import it.
package registrytest

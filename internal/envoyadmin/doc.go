// Package envoyadmin reads what a running Envoy says about itself on its admin
// port: for the demo and for tests. It changes nothing in Envoy, and the
// product does not import it.
package envoyadmin

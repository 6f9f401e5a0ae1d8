// Package bench measures the running product from outside: real processes,
// real disks, real sockets. Its figures, with their hardware, are in
// docs/performance.md.
//
//	make bench
package bench

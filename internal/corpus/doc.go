// Package corpus keeps what fuzz targets begin with in files, so that an encoding of an older version is still read
// when the code writes another one. It is for fuzz targets; the product does not import it.
//
// The files are in testdata/fuzz of each package, by target, in the form that `go test` plays by itself. Those of Add
// are named by what they are, those with a hash for a name `make fuzz` has found. What is not there yet is written by
//
//	go test ./registry -run '^Fuzz' -args -write-corpus
//
// and what is there stays as it is: to renew a file, remove it first.
package corpus

// Package authority makes certificates for development and tests: an authority, the
// certificates of members, workloads and operators, and the list of those revoked.
//
// What it makes says in every name that it is for development. It is no authority to
// run a mesh on: its key lies in a file, it keeps no record of what it signs, and
// nobody is asked who they are.
package authority

//go:build unix

package main

import "syscall"

// privateFiles has whatever this process makes be for its user alone: files
// 0600, folders 0700. The state tells where everything is and the token lets in.
func privateFiles() { syscall.Umask(0o077) }

//go:build unix

package main

import "syscall"

// filesMost is how many files and connections this process may have open. Go's runtime has
// raised that as far as it goes.
func filesMost() int64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > filesUnlimited {
		return filesUnlimited
	}
	return int64(limit.Cur)
}

package main

import (
	"log/slog"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/stellmap/stellmap/storage"
)

// What storage.reserve and storage.ballast may be besides a size.
const (
	none = "0"
	auto = "auto"
)

// openSpace makes sure that there is room for a start, and watches the disk as
// [storage] says.
func openSpace(c Config, fs vfs.FS, logger *slog.Logger, metrics prometheus.Registerer) (*storage.Space, error) {
	reserve := bytesOf(c.Storage.Reserve)
	ballast := storage.BallastFor(reserve)
	if c.Storage.Ballast != auto {
		ballast = bytesOf(c.Storage.Ballast)
	}
	return storage.OpenSpace(storage.SpaceOptions{
		FS: fs, Dir: c.Node.DataDir, ReserveBytes: reserve, BallastBytes: ballast, Logger: logger, Registerer: metrics,
	})
}

// bytesOf is a size that was checked.
func bytesOf(value string) int64 {
	n, _ := parseBytes(value) // 0 for none
	return int64(n)
}

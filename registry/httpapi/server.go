package httpapi

import (
	"log/slog"
	"net/http"
	"time"
)

// The bounds of a connection.
const (
	headerTimeout  = 3 * time.Second  // for a request's header to arrive
	readTimeout    = requestTimeout   // for all of a request to arrive, so that a slow body makes no slow call
	writeTimeout   = 60 * time.Second // from the header to the answer's last byte: a long list to a slow reader
	idleTimeout    = 3 * time.Minute  // between two requests: longer than clients keep a connection, so that they close it
	headerBytesMax = 32 << 10         // of thousands of lines it takes ten times as much while it is read
)

// NewServer makes a server with all its bounds set.
func NewServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    headerBytesMax,
		ErrorLog:          slog.NewLogLogger(loggerOr(log).Handler(), slog.LevelWarn),
	}
}

package httpapi

import (
	"errors"
	"io"
	"net/http"
	"time"
)

// sendSnapshot streams a backup for as long as it takes. In place of the server's
// deadline for a whole answer each step of it has one, so that a client that has
// stopped reading does not hold the state for ever. (That of reading is over when
// the request is there.)
// What is cut off in the middle ends without the last chunk, and the client can tell.
func (a *API) sendSnapshot(w http.ResponseWriter, q *http.Request) error {
	w.Header().Set("Content-Type", typeBytes)
	if q.Method == http.MethodHead {
		return nil
	}
	out := &patientWriter{w: w, control: http.NewResponseController(w), stall: a.limits.stall}
	err := a.snapshot(q.Context(), out)
	if err == nil || out.n == 0 {
		return err
	}
	a.log.Warn("the backup was cut off", "sent_bytes", out.n, "error", err)
	panic(http.ErrAbortHandler)
}

const typeBytes = "application/octet-stream"

// patientWriter gives each write its own time.
type patientWriter struct {
	w       io.Writer
	control *http.ResponseController
	stall   time.Duration
	n       int64
}

func (w *patientWriter) Write(p []byte) (int, error) {
	if err := w.control.SetWriteDeadline(time.Now().Add(w.stall)); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return 0, err
	}
	n, err := w.w.Write(p)
	w.n += int64(n)
	return n, err
}

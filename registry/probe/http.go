package probe

import (
	"bufio"
	"context"
	"io"
	"net/http"

	"github.com/stellmap/stellmap/internal/version"
)

// The bounds of an answer over HTTP. Its body is not read: what counts is the status.
const (
	httpHeaderBytesMax = 16 << 10
	httpInterimMax     = 4 // answers such as 103 before the one that counts
)

// http asks for the path, over a connection of its own: a Transport would keep
// goroutines for it and log by itself. A redirect is not followed: it would lead
// to where the rules have not been asked about; and it is no sign of health.
func (a *attempt) http(ctx context.Context) Outcome {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+a.authority()+a.check.Path, nil)
	if err != nil {
		return fails("%v", err)
	}
	request.Header.Set("User-Agent", "stellmap-check/"+version.Number)
	request.Close = true
	conn, err := a.connect(ctx)
	if err != nil {
		return fails("%v", err)
	}
	defer conn.Close()
	if err := request.Write(conn); err != nil {
		return fails("send: %v", err)
	}
	answer := bufio.NewReader(io.LimitReader(conn, httpHeaderBytesMax))
	for range httpInterimMax {
		response, err := http.ReadResponse(answer, request)
		if err != nil {
			return fails("no answer over HTTP within %d bytes: %v", httpHeaderBytesMax, err)
		}
		// Its body is not closed: that would read all of it first.
		if response.StatusCode >= 200 {
			return statusOutcome(response.StatusCode, response.Status)
		}
	}
	return fails("nothing but interim answers")
}

func statusOutcome(code int, text string) Outcome {
	switch {
	case code < 300:
		return passes
	case code == http.StatusTooManyRequests:
		return warns("status %s", text)
	case code < 400:
		return fails("status %s: redirects are not followed, check the path that they lead to", text)
	}
	return fails("status %s", text)
}

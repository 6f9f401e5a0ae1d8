package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// answerBytesMax bounds what is read of an answer.
const answerBytesMax = 16 << 20

// leaseToken is what shows that the upstreams are the demo's. A workload would
// choose one at random, or keep the one that its registration is answered with.
const leaseToken = "the-lease-token-of-the-demo"

// get reads a page.
func (s *scene) get(ctx context.Context, url string) (status int, body []byte, err error) {
	return s.call(ctx, http.MethodGet, url, "")
}

// call sends a request, with a JSON body where there is one, and reads the answer.
func (s *scene) call(ctx context.Context, method, url, body string) (status int, answer []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	if method != http.MethodGet {
		request.Header.Set("X-StellMap-Lease-Token", leaseToken)
	}
	response, err := s.client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(response.Body, answerBytesMax))
	return response.StatusCode, answer, err
}

func (s *scene) isOK(ctx context.Context, url string) error {
	status, body, err := s.get(ctx, url)
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return fmt.Errorf("%s answers %d: %.200s", url, status, body)
	}
	return nil
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/stellmap/stellmap/access"
	"github.com/stellmap/stellmap/consensus"
	"github.com/stellmap/stellmap/storage"
)

// Bounds of asking to be taken in.
const (
	joinPatience    = time.Minute     // then it is given up
	joinTimeout     = 6 * time.Second // for one member's answer, which may wait for another change
	joinPause       = 500 * time.Millisecond
	joinAnswerBytes = 1 << 20
)

// joiner asks members to take this node in.
type joiner struct {
	config Config
	uuid   string
	client *http.Client
	logger *slog.Logger
}

// join is the part of a first start in which this node learns of its cluster.
// One that was taken in before and has no state yet asks again.
func (n *node) join(ctx context.Context, file consensus.IdentityFile, id storage.Identity) (storage.Identity, error) {
	transport := &http.Transport{}
	if n.tls != nil {
		transport.DialTLSContext = func(ctx context.Context, _, address string) (net.Conn, error) {
			return n.tls.Dial(ctx, address, access.AnyPeer(n.config.Node.Region))
		}
	}
	defer transport.CloseIdleConnections()
	j := joiner{config: n.config, uuid: id.UUID, client: &http.Client{Transport: transport, Timeout: joinTimeout}, logger: n.logger}
	var err error
	if n.joining, err = j.ask(ctx); err != nil {
		return id, fmt.Errorf("join the cluster of %v: %w", n.config.Cluster.Join, err)
	}
	return consensus.Join(file, id, n.joining)
}

// ask goes round until a member takes this node in, or says that none will.
func (j *joiner) ask(ctx context.Context) (consensus.Joining, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, joinPatience, fmt.Errorf("nobody took this node in within %v: is one of them running, and its admin port there?", joinPatience))
	defer cancel()
	said := make(map[string]string) // by address: each reason once
	for {
		for _, address := range j.config.Cluster.Join {
			answer, err := j.askOne(ctx, address)
			var final *joinRefusal
			switch {
			case err == nil:
				j.logger.Info("taken in as a learner", "by", address, "cluster", answer.ClusterID, "incarnation", answer.Incarnation)
				return answer, nil
			case errors.As(err, &final):
				return consensus.Joining{}, fmt.Errorf("%s: %w", address, err)
			}
			if text := err.Error(); text != said[address] {
				j.logger.Warn("not taken in yet", "asked", address, "error", err)
				said[address] = text
			}
		}
		select {
		case <-ctx.Done():
			return consensus.Joining{}, fmt.Errorf("%w; the last answers were: %v", context.Cause(ctx), said)
		case <-time.After(joinPause):
		}
	}
}

// joinRefusal is an answer that stays the same, whoever is asked.
type joinRefusal struct{ text string }

func (r *joinRefusal) Error() string { return r.text }

// joinMember is a line of the address book, as httpapi writes and reads it.
type joinMember struct {
	NodeID    uint64 `json:"nodeId"`
	UUID      string `json:"uuid"`
	Since     uint64 `json:"since"`
	Removed   bool   `json:"removed"`
	HTTPAddr  string `json:"httpAddr"`
	XDSAddr   string `json:"xdsAddr"`
	GRPCAddr  string `json:"grpcAddr"`
	AdminAddr string `json:"adminAddr"`
}

func (j *joiner) askOne(ctx context.Context, address string) (consensus.Joining, error) {
	self := j.config.self()
	body, err := json.Marshal(struct {
		NodeID    uint64 `json:"nodeId"`
		UUID      string `json:"uuid"`
		ClusterID uint64 `json:"clusterId"`
		Region    string `json:"region"`
		HTTPAddr  string `json:"httpAddr"`
		XDSAddr   string `json:"xdsAddr"`
		GRPCAddr  string `json:"grpcAddr"`
		AdminAddr string `json:"adminAddr"`
	}{self.ID, j.uuid, j.config.Node.ClusterID, j.config.Node.Region, self.HTTP, self.XDS, self.GRPC, self.Admin})
	if err != nil {
		return consensus.Joining{}, fmt.Errorf("encode the request: %w", err)
	}
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, j.config.scheme()+address+"/admin/v1/members/join", bytes.NewReader(body))
	if err != nil {
		return consensus.Joining{}, err
	}
	q.Header.Set("Content-Type", "application/json")
	response, err := j.client.Do(q)
	if err != nil {
		return consensus.Joining{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, joinAnswerBytes))
	if err != nil {
		return consensus.Joining{}, fmt.Errorf("read the answer: %w", err)
	}
	return joiningOf(response.StatusCode, text)
}

// joiningOf reads an answer.
func joiningOf(status int, body []byte) (consensus.Joining, error) {
	var answer struct {
		Message string `json:"message"`
		Data    struct {
			ClusterID   uint64       `json:"clusterId"`
			Founders    string       `json:"founders"`
			Incarnation string       `json:"incarnation"`
			Members     []joinMember `json:"members"`
		} `json:"data"`
	}
	err := json.Unmarshal(body, &answer)
	switch {
	case status >= 400 && status < 500 && status != http.StatusTooManyRequests && err == nil && answer.Message != "":
		return consensus.Joining{}, &joinRefusal{answer.Message}
	case status != http.StatusOK:
		return consensus.Joining{}, fmt.Errorf("it answers %d: %.200s", status, body)
	case err != nil:
		return consensus.Joining{}, fmt.Errorf("decode the answer: %w", err)
	}
	j := consensus.Joining{ClusterID: answer.Data.ClusterID, Founders: answer.Data.Founders, Incarnation: answer.Data.Incarnation}
	for _, m := range answer.Data.Members {
		j.Members = append(j.Members, consensus.Member{
			ID: m.NodeID, UUID: m.UUID, HTTP: m.HTTPAddr, XDS: m.XDSAddr, GRPC: m.GRPCAddr, Admin: m.AdminAddr, Since: m.Since, Removed: m.Removed,
		})
	}
	return j, nil
}

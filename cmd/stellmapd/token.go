package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// tokenBytes is how much chance is in a token.
const tokenBytes = 32

// adminToken reads the administrator's token, which the first start makes.
func adminToken(path string) (string, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeToken(path)
	}
	if err != nil {
		return "", fmt.Errorf("read the administrator's token: %w", err)
	}
	token := strings.TrimSpace(string(data))
	if len(token) < 2*tokenBytes {
		return "", fmt.Errorf("read the administrator's token: %s holds %d characters, a token has %d; remove the file, and the next start makes another", path, len(token), 2*tokenBytes)
	}
	return token, nil
}

// makeToken makes a new one.
func makeToken(path string) (string, error) {
	random := make([]byte, tokenBytes)
	rand.Read(random) // never fails
	token := hex.EncodeToString(random)
	if err := writeToken(path, token); err != nil {
		return "", fmt.Errorf("make the administrator's token: %w", err)
	}
	return token, nil
}

// writeToken writes one that only the owner can read. The file gets its name when it is
// whole and on the disk: a power cut must not leave one that the next start refuses.
func writeToken(path, token string) error {
	temp := path + ".tmp"
	err := os.Remove(temp) // a leftover may be readable by others
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = writeSynced(temp, token+"\n")
	}
	if err == nil {
		err = os.Rename(temp, path)
	}
	return err
}

func writeSynced(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

package probe

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
)

// MySQL counts whoever connects and leaves before he has said who he is, and after
// a hundred of them (max_connect_errors) lets nobody in from there any more. So
// the check says who it is, by a name that no server has to know, and takes the
// refusal for what it is: the word of a server that works.
const mysqlUser = "stellmap_check"

// The bounds and the numbers of the protocol
// (https://dev.mysql.com/doc/dev/mysql-server/latest/PAGE_PROTOCOL.html).
const (
	mysqlPacketBytesMax = 4 << 10
	mysqlPacketsMax     = 4 // after the greeting, until the login is decided

	mysqlVersion    = 10
	mysqlOK         = 0x00
	mysqlAuthSwitch = 0xfe
	mysqlError      = 0xff

	// Protocol 4.1, secure connection, plug-ins for authentication.
	mysqlCapabilities = 1<<9 | 1<<15 | 1<<19
	mysqlCharset      = 33 // utf8
)

// mysqlDown are the errors that say that the server does not take calls: too many
// connections, shutting down, this host has been shut out, cannot make a thread.
var mysqlDown = []uint16{1040, 1053, 1129, 1135}

// mysqlNotHere says that no account may come from this host: the server's word before any greeting.
const mysqlNotHere = 1130

// mysql reads the greeting and logs in.
func (a *attempt) mysql(ctx context.Context) Outcome {
	conn, err := a.connect(ctx)
	if err != nil {
		return fails("%v", err)
	}
	defer conn.Close()
	greeting, sequence, err := readPacket(conn)
	switch {
	case err != nil:
		return fails("no greeting: %v", err)
	case greeting[0] == mysqlError:
		return mysqlRefusal(greeting, true)
	case greeting[0] != mysqlVersion || bytes.IndexByte(greeting, 0) < 0:
		return fails("the greeting is not MySQL's")
	}
	if err := writePacket(conn, sequence+1, mysqlLogin()); err != nil {
		return fails("log in: %v", err)
	}
	for range mysqlPacketsMax {
		answer, sequence, err := readPacket(conn)
		switch {
		case err != nil:
			return fails("no answer to the login: %v", err)
		case answer[0] == mysqlOK:
			return passes
		case answer[0] == mysqlError:
			return mysqlRefusal(answer, false)
		case answer[0] == mysqlAuthSwitch: // to another way of authentication, in which no password is as good
			if err := writePacket(conn, sequence+1, nil); err != nil {
				return fails("log in: %v", err)
			}
		}
	}
	return fails("the login is not decided after %d packets", mysqlPacketsMax)
}

// mysqlRefusal judges an error. One that comes in place of the greeting is that of
// a server that takes no calls, but for the one that says who may come.
func mysqlRefusal(packet []byte, instead bool) Outcome {
	if len(packet) < 3 {
		return fails("an error of MySQL without a number")
	}
	code := binary.LittleEndian.Uint16(packet[1:])
	if code == mysqlNotHere || !instead && !slices.Contains(mysqlDown, code) {
		return passes
	}
	text := packet[3:]
	if len(text) > 6 && text[0] == '#' { // the state of SQL
		text = text[6:]
	}
	return fails("MySQL answers %d: %s", code, text)
}

// mysqlLogin is a HandshakeResponse41 without a password.
func mysqlLogin() []byte {
	p := binary.LittleEndian.AppendUint32(nil, mysqlCapabilities)
	p = binary.LittleEndian.AppendUint32(p, mysqlPacketBytesMax)
	p = append(p, mysqlCharset)
	p = append(p, make([]byte, 23)...)
	p = append(append(p, mysqlUser...), 0)
	p = append(p, 0) // no bytes of a password
	return append(append(p, "mysql_native_password"...), 0)
}

func readPacket(from io.Reader) (payload []byte, sequence byte, err error) {
	var head [4]byte
	if _, err := io.ReadFull(from, head[:]); err != nil {
		return nil, 0, err
	}
	size := int(head[0]) | int(head[1])<<8 | int(head[2])<<16
	if size == 0 || size > mysqlPacketBytesMax {
		return nil, 0, fmt.Errorf("a packet of %d bytes: 1 to %d", size, mysqlPacketBytesMax)
	}
	payload = make([]byte, size)
	_, err = io.ReadFull(from, payload)
	return payload, head[3], err
}

func writePacket(to io.Writer, sequence byte, payload []byte) error {
	size := len(payload)
	_, err := to.Write(append([]byte{byte(size), byte(size >> 8), byte(size >> 16), sequence}, payload...))
	return err
}

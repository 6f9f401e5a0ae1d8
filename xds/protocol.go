package xds

// A dialect is how a proxy talks to the endpoints of a cluster.
type dialect uint8

const (
	dialectTCP dialect = iota // bytes; no host name leads here
	dialectHTTP1
	dialectHTTP2
	dialectGRPC
	dialectHTTPS
)

// dialectOf reads a registered protocol. What is not known by name is bytes.
func dialectOf(protocol string) dialect {
	switch protocol {
	case "http":
		return dialectHTTP1
	case "h2c":
		return dialectHTTP2
	case "grpc":
		return dialectGRPC
	case "https":
		return dialectHTTPS
	}
	return dialectTCP
}

func (d dialect) isHTTP() bool { return d != dialectTCP }

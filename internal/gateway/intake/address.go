package intake

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// These are the headers in which a proxy may name its client.
const (
	headerXForwardedFor = "X-Forwarded-For"
	headerForwarded     = "Forwarded" // see RFC 7239
)

// Addresses finds the address of a request's client.
type Addresses struct {
	trusted []netip.Prefix // the proxies that are believed
	header  string         // the header that the proxies write; a client may have written any other
}

// NewAddresses returns Addresses that believe the trusted proxies. header names the header that the
// proxies write: X-Forwarded-For or Forwarded; "" stands for X-Forwarded-For.
func NewAddresses(trusted []netip.Prefix, header string) (*Addresses, error) {
	header = http.CanonicalHeaderKey(header)
	switch header {
	case "":
		header = headerXForwardedFor
	case headerXForwardedFor, headerForwarded:
	default:
		return nil, fmt.Errorf("forwarded header is %.40q, want %s or %s", header, headerXForwardedFor, headerForwarded)
	}
	for _, p := range trusted {
		if !p.IsValid() {
			return nil, errors.New("a trusted proxy's prefix is not valid")
		}
	}
	return &Addresses{slices.Clone(trusted), header}, nil
}

// Of returns the address of a request's client. This is the peer of the connection, unless the peer
// is a trusted proxy. Then it is the last hop in the header that is not a trusted proxy. Earlier
// hops are not believed, because that hop or its clients wrote them.
func (a *Addresses) Of(r *http.Request) netip.Addr {
	addr := peerAddress(r.RemoteAddr)
	if !trusts(a.trusted, addr) {
		return addr
	}
	for _, line := range slices.Backward(r.Header[a.header]) {
		for line != "" {
			var element string
			line, element = cutLast(line)
			if element == "" {
				continue
			}
			hop, ok := a.hop(element)
			if !ok {
				return addr // the proxy does not name its client, so the proxy counts as the client
			}
			if addr = hop; !trusts(a.trusted, addr) {
				return addr
			}
		}
	}
	return addr
}

// hop reads one element of the header; false means that it names no address.
func (a *Addresses) hop(element string) (netip.Addr, bool) {
	if a.header == headerXForwardedFor {
		return parseHop(element)
	}
	for pair := range strings.SplitSeq(element, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(pair), "=")
		if strings.EqualFold(name, "for") {
			return parseHop(strings.Trim(value, `"`))
		}
	}
	return netip.Addr{}, false
}

// cutLast splits the last element off a list with commas. It reads from the end, where the nearest
// proxy wrote, so that a quote which a client left open earlier in the list changes nothing.
func cutLast(list string) (rest, last string) {
	quoted := false
	for i := len(list) - 1; i >= 0; i-- {
		switch {
		case list[i] == '"':
			quoted = !quoted
		case list[i] == ',' && !quoted:
			return list[:i], strings.TrimSpace(list[i+1:])
		}
	}
	return "", strings.TrimSpace(list)
}

// parseHop reads an address, with or without port and brackets. It returns false for anything else,
// such as "unknown" or an obfuscated name.
func parseHop(s string) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(s)
	if err != nil {
		var with netip.AddrPort
		if with, err = netip.ParseAddrPort(s); err == nil {
			addr = with.Addr()
		} else if inner, ok := strings.CutPrefix(s, "["); ok {
			if inner, ok = strings.CutSuffix(inner, "]"); ok {
				addr, err = netip.ParseAddr(inner)
			}
		}
	}
	return addr.Unmap().WithZone(""), err == nil
}

// peerAddress returns the address of a connection's other end, or 0.0.0.0 if the connection has no
// such address.
func peerAddress(hostPort string) netip.Addr {
	with, err := netip.ParseAddrPort(hostPort)
	if err != nil {
		return netip.IPv4Unspecified()
	}
	return with.Addr().Unmap().WithZone("")
}

func trusts(proxies []netip.Prefix, addr netip.Addr) bool {
	for _, p := range proxies {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

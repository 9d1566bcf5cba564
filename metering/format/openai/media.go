package openai

import (
	"slices"
	"strings"

	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/rawjson"
)

// checkMedia checks where a picture, a sound or a film comes from. The bytes
// themselves may come along as a data: URL. An address that the backend would
// fetch must be of a host that the owner allows: otherwise a client could make
// the backend read files and talk to hosts that only the backend can reach.
func checkMedia(param string, v []byte, p *format.Policy) error {
	if !rawjson.IsString(v) {
		return format.RefuseParam(param, "%s must be a data: URL", param)
	}
	url := string(rawjson.Unquote(v))
	if rest, ok := strings.CutPrefix(url, "data:"); ok {
		if isDataURL(rest) {
			return nil
		}
		return format.RefuseParam(param, "%s is no data: URL; its form is data:image/png;base64, and the bytes", param)
	}
	host, ok := webHost(url)
	switch {
	case ok && slices.ContainsFunc(p.MediaHosts, func(pattern string) bool { return hostMatches(pattern, host) }):
		return nil
	case ok && len(p.MediaHosts) > 0:
		return format.RefuseParam(param, "%s is at a host that is not allowed here; send the bytes as a data: URL", param)
	}
	return format.RefuseParam(param,
		"%s is an address that the backend would have to fetch; send the bytes as a data: URL", param)
}

// maxDataHead bounds what stands before the comma of a data: URL, in bytes.
const maxDataHead = 256

// isDataURL reports whether rest can follow "data:" (RFC 2397): a media type,
// parameters and ";base64", none of which must be there, and a comma before the
// bytes. Engines would look elsewhere for what only begins like one.
func isDataURL(rest string) bool {
	head, _, ok := strings.Cut(rest[:min(len(rest), maxDataHead)], ",")
	if !ok {
		return false
	}
	kind, parameters, more := strings.Cut(head, ";")
	if name, sub, ok := strings.Cut(kind, "/"); kind != "" && !(ok && isToken(name) && isToken(sub)) {
		return false
	}
	for more {
		var p string
		p, parameters, more = strings.Cut(parameters, ";")
		name, value, valued := strings.Cut(p, "=")
		if !isToken(name) || valued && !isToken(value) {
			return false
		}
	}
	return true
}

// isToken reports whether s can be a part of a media type, escaped or not. No
// address can: it has a slash or a colon.
func isToken(s string) bool {
	return s != "" && strings.Trim(strings.ToLower(s), "abcdefghijklmnopqrstuvwxyz0123456789!#$&^_.+-%") == ""
}

// webHost is the host of an http or https URL in lower case. It accepts only
// spellings that every parser reads alike: no user, no backslash, nothing
// outside printable ASCII, and a host of letters, digits, dots and hyphens.
func webHost(url string) (host string, ok bool) {
	rest, ok := strings.CutPrefix(url, "https://")
	if !ok {
		if rest, ok = strings.CutPrefix(url, "http://"); !ok {
			return "", false
		}
	}
	for _, c := range []byte(url) {
		if c <= ' ' || c >= 0x7f || c == '\\' {
			return "", false
		}
	}
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		rest = rest[:i]
	}
	host, port, ported := strings.Cut(rest, ":")
	if host == "" || strings.Trim(strings.ToLower(host), "abcdefghijklmnopqrstuvwxyz0123456789.-") != "" {
		return "", false
	}
	if ported && (port == "" || strings.Trim(port, "0123456789") != "") {
		return "", false
	}
	return strings.ToLower(host), true
}

// hostMatches reports whether a host is the one that pattern names, or for
// "*.example.com" one below it.
func hostMatches(pattern, host string) bool {
	if below, ok := strings.CutPrefix(pattern, "*"); ok {
		return strings.HasSuffix(host, below) && len(host) > len(below)
	}
	return host == pattern
}

// ValidMediaHost reports whether s may stand in Policy.MediaHosts: a host name
// in lower case without scheme and port, or "*." and one.
func ValidMediaHost(s string) bool {
	name := strings.TrimPrefix(s, "*.")
	return name != "" && len(s) <= 253 && s == strings.ToLower(s) && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789.-") == "" &&
		name[0] != '.'
}

// isBase64 reports whether the text of a JSON string is base64. Paths that look
// like it are short, or begin with a slash.
func isBase64(v []byte) bool {
	if !rawjson.IsString(v) {
		return false
	}
	text := rawjson.Unquote(v)
	if len(text) < 64 || text[0] == '/' {
		return false
	}
	for _, c := range text {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '+' && c != '/' && c != '=' && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

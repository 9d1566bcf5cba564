package intake

import (
	"net/http"
	"net/netip"
	"testing"
)

func TestForwardedAddressIsTheLastUntrustedHop(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8"), netip.MustParsePrefix("192.0.2.7/32")}
	for _, c := range []struct {
		peer   string
		header string
		lines  []string
		want   string
	}{
		{"203.0.113.9:1", headerXForwardedFor, []string{"1.1.1.1"}, "203.0.113.9"}, // the peer is not a trusted proxy, so its header is not believed
		{"10.0.0.1:1", headerXForwardedFor, nil, "10.0.0.1"},
		{"10.0.0.1:1", headerXForwardedFor, []string{"1.1.1.1"}, "1.1.1.1"},
		{"10.0.0.1:1", headerXForwardedFor, []string{"6.6.6.6, 1.1.1.1"}, "1.1.1.1"}, // the client wrote the elements further left
		{"10.0.0.1:1", headerXForwardedFor, []string{"6.6.6.6, 1.1.1.1 ,192.0.2.7,, 10.9.9.9"}, "1.1.1.1"},
		{"10.0.0.1:1", headerXForwardedFor, []string{"6.6.6.6", "1.1.1.1", "192.0.2.7"}, "1.1.1.1"}, // several lines are one list
		{"[fd00::1]:1", headerXForwardedFor, []string{"2001:db8::5"}, "2001:db8::5"},
		{"[::ffff:10.0.0.1]:1", headerXForwardedFor, []string{"::ffff:1.1.1.1"}, "1.1.1.1"},
		{"10.0.0.1:1", headerXForwardedFor, []string{"1.1.1.1:5555"}, "1.1.1.1"},
		{"10.0.0.1:1", headerXForwardedFor, []string{"[2001:db8::5]:5555"}, "2001:db8::5"},
		{"10.0.0.1:1", headerXForwardedFor, []string{"fe80::1%eth0"}, "fe80::1"},
		{"10.0.0.1:1", headerXForwardedFor, []string{"1.1.1.1, unknown"}, "10.0.0.1"}, // the proxy does not name its client
		{"10.0.0.1:1", headerXForwardedFor, []string{"1.1.1.1, junk, 192.0.2.7"}, "192.0.2.7"},
		{"10.0.0.1:1", headerXForwardedFor, []string{"10.2.2.2, 10.1.1.1"}, "10.2.2.2"}, // all hops are trusted proxies: the first hop counts
		{"10.0.0.1:1", headerXForwardedFor, []string{""}, "10.0.0.1"},
		{"@", headerXForwardedFor, []string{"1.1.1.1"}, "0.0.0.0"},

		{"10.0.0.1:1", headerForwarded, []string{`for=1.1.1.1;proto=https;by=10.0.0.1`}, "1.1.1.1"},
		{"10.0.0.1:1", headerForwarded, []string{`for=6.6.6.6, proto=http; FOR="[2001:db8::5]:443"`}, "2001:db8::5"},
		{"10.0.0.1:1", headerForwarded, []string{`for="[2001:db8::5]", for=192.0.2.7`}, "2001:db8::5"},
		{"10.0.0.1:1", headerForwarded, []string{`for=6.6.6.6;x="`, `for=1.1.1.1`}, "1.1.1.1"},
		{"10.0.0.1:1", headerForwarded, []string{`for=6.6.6.6;x=", for=1.1.1.1`}, "1.1.1.1"}, // an open quote hides no hop
		{"10.0.0.1:1", headerForwarded, []string{`for=_hidden`}, "10.0.0.1"},
		{"10.0.0.1:1", headerForwarded, []string{`proto=https`}, "10.0.0.1"},
	} {
		a, err := NewAddresses(trusted, c.header)
		if err != nil {
			t.Fatal(err)
		}
		// A client can always send the header that the proxy does not write.
		h := http.Header{headerXForwardedFor: {"6.6.6.6"}, headerForwarded: {"for=6.6.6.6"}, "X-Real-Ip": {"6.6.6.6"}}
		h[c.header] = c.lines
		if got := a.Of(&http.Request{RemoteAddr: c.peer, Header: h}); got.String() != c.want {
			t.Errorf("%s, %s %q: %v, want %s", c.peer, c.header, c.lines, got, c.want)
		}
	}
	if _, err := NewAddresses(nil, "X-Real-IP"); err == nil {
		t.Error("another header was taken")
	}
	if _, err := NewAddresses([]netip.Prefix{{}}, ""); err == nil {
		t.Error("an invalid prefix was taken")
	}
}

func FuzzForwarded(f *testing.F) {
	f.Add(`for="[2001:db8::5]:443";proto=http, for=192.0.2.7`, true)
	f.Add("1.1.1.1, 10.0.0.2", false)
	f.Add(`for=6.6.6.6;x=", for=1.1.1.1`, true)
	f.Add(`,,,"`, false)
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	f.Fuzz(func(t *testing.T, client string, standard bool) {
		name, last := headerXForwardedFor, "203.0.113.9"
		if standard {
			name, last = headerForwarded, "for=203.0.113.9"
		}
		a, err := NewAddresses(trusted, name)
		if err != nil {
			t.Fatal(err)
		}
		r := &http.Request{RemoteAddr: "10.0.0.1:1", Header: http.Header{name: {client}}}
		if got := a.Of(r); !got.IsValid() || got.Is4In6() || got.Zone() != "" {
			t.Errorf("%q gives %v", client, got)
		}
		// The last element counts, because the proxy added it, whatever the client wrote before.
		for _, lines := range [][]string{{client + ", " + last}, {client, last}} {
			r.Header[name] = lines
			if got := a.Of(r); got.String() != "203.0.113.9" {
				t.Errorf("%q gives %v", lines, got)
			}
		}
	})
}

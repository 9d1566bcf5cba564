package gateway_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"sluice.example/sluice/internal/gateway"
	"sluice.example/sluice/internal/gateway/intake"
	"sluice.example/sluice/l402"
)

// TestProblemsAreShownBySDKs: SDKs show the detail of each refusal: 402, 401, 403, 404, 405, 412,
// 413, 429, and 400 with the field. rig.do checks the member for each refusal.
func TestProblemsAreShownBySDKs(t *testing.T) {
	r := newRig(t)
	k := r.buy(minPurchase)
	bad := k
	bad.preimage[0] ^= 1
	for name, c := range map[string]struct {
		got   *answer
		param string
	}{
		"402":              {r.do("POST", chatPath, request(), nil), ""},
		"401":              {r.chat(bad, request()), ""},
		"403":              {r.chat(k.attenuate(t, "inference_models=x"), request()), ""},
		"model":            {r.chat(k, request("model", `"nope"`)), "model"},
		"no model":         {r.chat(k, `{"messages":[{"role":"user","content":"x"}]}`), "model"},
		"no messages":      {r.chat(k, `{"model":"demo"}`), "messages"},
		"a field":          {r.chat(k, request("max_tokens", `{}`)), "max_tokens"},
		"a field twice":    {r.chat(k, `{"model":"demo","model":"demo","messages":[]}`), "model"},
		"a misspelt field": {r.chat(k, request("Max_Tokens", "4")), "Max_Tokens"},
		"a header":         {r.chat(k, request(), "L402-Max-Cost-Msat", "x"), "L402-Max-Cost-Msat"},
		"412":              {r.chat(k, request(), "L402-Max-Cost-Msat", "1"), ""},
		"no JSON":          {r.chat(k, "{"), ""},
		"unknown route":    {r.do("POST", "/v1/nowhere", "", nil), ""},
		"unknown model":    {r.do("GET", "/v1/models/nope", "", nil), "model"},
		"backend":          {r.chat(k, request(), "X-Fault", "status:500"), ""},
	} {
		p := c.got.json(t)
		if got, _ := p["param"].(string); got != c.param || c.got.status < 400 {
			t.Errorf("%s: status %d, param %q; want %q\n%s", name, c.got.status, got, c.param, c.got.body)
		}
	}
	if p := r.do("GET", "/l402/quote?model=demo&max_tokens=x", "", nil).json(t); p["param"] != "max_tokens" || p["error"] != nil {
		t.Errorf("a route of our own: %v", p)
	}
	r.wantSpent(k, 0)
}

// TestUnknownRoutesReadWellInEverySDK: a caller of Anthropic's API gets an error in the form of
// that API, with the type of RFC 9457 in another member.
func TestUnknownRoutesReadWellInEverySDK(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		path string
		with header
	}{{"/v1/messages", nil}, {"/v1/messages/count_tokens", nil}, {"/v1/complete", header{"Anthropic-Version": "2023-06-01"}}} {
		a := r.do("POST", c.path, "{}", c.with)
		p := a.json(t)
		e, _ := p["error"].(map[string]any)
		if a.status != http.StatusNotFound || p["type"] != "error" || e["type"] != "not_found_error" || e["message"] != p["detail"] ||
			p["message"] != p["detail"] || p["problem"] != "urn:sluice:problem:unknown-route" || p["request_id"] != a.header.Get("Request-Id") {
			t.Errorf("%s: %d %s", c.path, a.status, a.body)
		}
	}
	// anthropic-ts shows a clean text of any body that has a message at the top level.
	p := r.do("POST", "/v1/nowhere", "{}", nil).wantProblem(t, http.StatusNotFound, "unknown-route")
	if p["message"] != p["detail"] {
		t.Errorf("no message: %v", p)
	}
}

// TestAnswersCarryTheRequestIDsOfSDKs: every answer to a paid request has the id of its ledger
// entry in the headers that SDKs read, whatever id the backend sends.
func TestAnswersCarryTheRequestIDsOfSDKs(t *testing.T) {
	r := newRig(t)
	k := r.buy(minPurchase)
	for _, body := range []string{request(), request("stream", "true")} {
		a := r.chat(k, body, "X-Request-Id", "chosen-by-the-client")
		id := a.header.Get("L402-Request-Id")
		if a.status != http.StatusOK || id == "" || a.header.Get("X-Request-Id") != id {
			t.Errorf("%d %v", a.status, a.header)
		}
	}
}

// grpcFrames sends one gRPC request without TLS, and returns the header fields of each frame up to
// the end of the stream.
func (r *rig) grpcFrames(path string, fields ...[2]string) (frames []map[string]string) {
	r.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
		r.t.Fatal(err)
	}
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if err := framer.WriteSettings(); err != nil {
		r.t.Fatal(err)
	}
	var block strings.Builder
	encoder := hpack.NewEncoder(&block)
	for _, f := range append([][2]string{{":method", "POST"}, {":scheme", "http"}, {":authority", "gateway"}, {":path", path},
		{"content-type", "application/grpc"}, {"te", "trailers"}}, fields...) {
		if err := encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			r.t.Fatal(err)
		}
	}
	err = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte(block.String()), EndHeaders: true})
	if err == nil {
		err = framer.WriteData(1, true, []byte{0, 0, 0, 0, 0}) // one empty message
	}
	if err != nil {
		r.t.Fatal(err)
	}
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			r.t.Fatal(err)
		}
		switch f := frame.(type) {
		case *http2.MetaHeadersFrame:
			got := map[string]string{}
			for _, field := range f.Fields {
				got[field.Name] = field.Value
			}
			if frames = append(frames, got); f.StreamEnded() {
				return frames
			}
		case *http2.DataFrame:
			if frames = append(frames, map[string]string{"data": string(f.Data())}); f.StreamEnded() {
				return frames
			}
		}
	}
}

// TestGRPCChallengeIsTrailersOnly: the 402 for gRPC is one HEADERS frame, because interceptors read
// the challenge from the trailers, and would take a body for a message.
func TestGRPCChallengeIsTrailersOnly(t *testing.T) {
	r := newRig(t)
	frames := r.grpcFrames(chatPath)
	if len(frames) != 1 {
		t.Fatalf("%d frames, want one: %v", len(frames), frames)
	}
	f := frames[0]
	if f[":status"] != "200" || f["content-type"] != "application/grpc" || f["grpc-status"] != "13" || f["grpc-message"] != "payment required" {
		t.Errorf("frame %v", f)
	}
	c, err := l402.ParseChallenge([]string{f["www-authenticate"]})
	if err != nil {
		t.Fatalf("challenge: %v in %v", err, f)
	}
	k := r.pay(&answer{header: http.Header{"Www-Authenticate": {f["www-authenticate"]}}})
	if len(c.Macaroon) == 0 || k.amount != minPurchase {
		t.Errorf("the challenge is for %d", k.amount)
	}

	// The specification's metadata key carries the credential. The message is not JSON, so the
	// request is refused as the holder's mistake.
	carried := k.attenuate(t, "preimage="+k.preimage.Hex())
	for _, name := range []string{"token", "macaroon"} {
		frames := r.grpcFrames(chatPath, [2]string{name, hexOf(carried.macaroon)})
		if len(frames) != 1 || frames[0]["grpc-status"] != "3" || frames[0]["www-authenticate"] != "" {
			t.Errorf("with %s: %v", name, frames)
		}
	}
	for path, want := range map[string]string{"/pkg.Service/Method": "12", chatPath + "/x": "12"} {
		if frames := r.grpcFrames(path); len(frames) != 1 || frames[0]["grpc-status"] != want {
			t.Errorf("%s: %v", path, frames)
		}
	}
}

// TestGRPCRefusalsHaveTheirStatus: a limited caller of gRPC is told so, and when to try again.
func TestGRPCRefusalsHaveTheirStatus(t *testing.T) {
	r := newRig(t, func(s *setup) {
		s.gateway = func(c *gateway.Config) {
			c.Challenges = &intake.ChallengeLimits{Address: intake.Rate{PerSecond: 0.001, Burst: 1}}
		}
	})
	if f := r.grpcFrames(chatPath)[0]; f["grpc-status"] != "13" {
		t.Errorf("first: %v", f)
	}
	if f := r.grpcFrames(chatPath)[0]; f["grpc-status"] != "8" || f["grpc-retry-pushback-ms"] == "" || !strings.Contains(f["grpc-message"], "too many requests") {
		t.Errorf("second: %v", f)
	}
}

// TestGRPCChallengeOverTLS: an HTTP/2 client over TLS gets the same single frame, which ends the
// stream.
func TestGRPCChallengeOverTLS(t *testing.T) {
	certFile, keyFile := selfSigned(t)
	r := newRig(t)
	srv, err := intake.NewServer(intake.ServerConfig{Handler: r.gw.Handler(), CertFile: certFile, KeyFile: keyFile})
	if err != nil {
		t.Fatal(err)
	}
	l := listen(t)
	go srv.ServeTLS(l, "", "")
	t.Cleanup(func() { srv.Close() })
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, Protocols: new(http.Protocols)}
	tr.Protocols.SetHTTP2(true)
	defer tr.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+l.Addr().String()+chatPath, strings.NewReader("\x00\x00\x00\x00\x00"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/grpc+proto")
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	drainBody(resp)
	if resp.ProtoMajor != 2 || resp.StatusCode != http.StatusOK || resp.Header.Get("Grpc-Status") != "13" || resp.Header.Get("Www-Authenticate") == "" || len(resp.Trailer) != 0 {
		t.Errorf("%d %v %v", resp.StatusCode, resp.Header, resp.Trailer)
	}
}

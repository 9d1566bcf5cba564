package inference

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

const tenTokens = `"max_tokens":10,"ignore_eos":true,"seed":1,"temperature":0`

const withUsage = `"stream_options":{"include_usage":true}`

// faultServer returns a server that answers each request with the fault in the request's X-Fault
// header.
func faultServer(t *testing.T) (*Server, string) {
	cfg := fast()
	cfg.AllowFaults = true
	return serve(t, cfg)
}

func faulty(t *testing.T, url, fault string, stream bool) *http.Response {
	t.Helper()
	more := tenTokens
	if stream {
		more += `,"stream":true,` + withUsage
	}
	return post(t, url+"/v1/chat/completions", request(more), "X-Fault", fault)
}

// Each test below names the faults that it covers. This test checks that the table in the comment
// and the tests cover every fault.
func TestEveryFaultIsDocumentedAndTested(t *testing.T) {
	table, err := os.ReadFile("faults.go")
	if err != nil {
		t.Fatal(err)
	}
	tests, err := os.ReadFile("faults_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, setters, _ := strings.Cut(string(table), "setters := ")
	names := 0
	for line := range strings.SplitSeq(setters, "\n") {
		name, ok := strings.CutPrefix(strings.TrimSpace(line), `"`)
		if !ok {
			continue
		}
		name, _, _ = strings.Cut(name, `"`)
		names++
		if !strings.Contains(string(table), "//\t"+name) && !strings.Contains(string(table), ", "+name+" ") {
			t.Errorf("fault %s is not in the table", name)
		}
		if !strings.Contains(string(tests), `"`+name) && !strings.Contains(string(tests), `,`+name) {
			t.Errorf("fault %s has no test", name)
		}
	}
	if names < 34 {
		t.Errorf("found only %d faults", names)
	}
}

func TestFaultArgumentsAreChecked(t *testing.T) {
	for _, list := range []string{"nonsense", "cut:x", "cut:-1", "status:200", "status:x", "stall:1:x", "stall-headers:-1s", "usage:odd", "gzip:1", "slow-body:soon"} {
		if _, err := parseFaults(list); err == nil {
			t.Errorf("%q was accepted", list)
		}
	}
	if p, err := parseFaults(" no-usage, cut:5 ,"); err != nil || !p.noUsage || p.cutAt != 5 {
		t.Errorf("%+v, %v", p, err)
	}
	_, url := faultServer(t)
	if resp := faulty(t, url, "nonsense", false); resp.StatusCode != 400 {
		t.Error("unknown fault in the header:", resp.StatusCode)
	}
	_, url = serve(t, fast())
	if resp := faulty(t, url, "status:500", false); resp.StatusCode != 200 {
		t.Error("a fault header without permission:", resp.StatusCode)
	}
}

func TestScriptAndStandingFaults(t *testing.T) {
	cfg := fast()
	cfg.Script, cfg.Faults = []string{"status:503:3", ""}, "status:429"
	s, url := serve(t, cfg)
	for i, want := range []int{503, 200, 429, 429} {
		resp := post(t, url+"/v1/chat/completions", request(tenTokens))
		if resp.StatusCode != want || want == 503 && resp.Header.Get("Retry-After") != "3" {
			t.Errorf("request %d: %d %v", i, resp.StatusCode, resp.Header)
		}
	}
	if err := s.Faults("nonsense"); err == nil {
		t.Error("an unknown standing fault was accepted")
	}
	if err := s.Faults(""); err != nil {
		t.Fatal(err)
	}
	unary(t, url, request(tenTokens))
	if recs := s.Requests(); len(recs) != 5 || recs[0].Outcome != "fault" || recs[4].Outcome != "complete" || recs[4].Header.Get("User-Agent") == "" || string(recs[4].Body) != request(tenTokens) {
		t.Errorf("recorded %+v", recs)
	}
}

func TestFaultsBeforeTheFirstByte(t *testing.T) {
	s, url := faultServer(t)
	for fault, want := range map[string]int{"status:400": 400, "status:429:2": 429, "status:500": 500, "status:503": 503, "redirect:http://127.0.0.1:1/": 302} {
		resp := faulty(t, url, fault, true)
		if resp.StatusCode != want {
			t.Errorf("%s: %d", fault, resp.StatusCode)
		}
		if want == 302 && resp.Header.Get("Location") != "http://127.0.0.1:1/" {
			t.Errorf("redirect to %q", resp.Header.Get("Location"))
		}
	}
	for _, fault := range []string{"drop", "drop,reset:0"} {
		req, err := http.NewRequest("POST", url+"/v1/chat/completions", strings.NewReader(request("")))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Fault", fault)
		resp, err := httpClient(t).Do(req)
		if err == nil {
			resp.Body.Close()
			t.Errorf("%s: answered %d", fault, resp.StatusCode)
		}
		if strings.Contains(fault, "reset") && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: %v", fault, err)
		}
	}
	if got := s.Stats().GeneratedTokens; got != 0 {
		t.Errorf("%d tokens generated", got)
	}
}

func TestFaultStallHeaders(t *testing.T) {
	s, url := faultServer(t)
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "POST", url+"/v1/chat/completions", strings.NewReader(request("")))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Fault", "stall-headers")
	failed := make(chan error)
	go func() {
		resp, err := httpClient(t).Do(req)
		if err == nil {
			resp.Body.Close()
		}
		failed <- err
	}()
	eventually(t, "the request arrives", func() bool { return s.Stats().Requests == 1 })
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	eventually(t, "the server notices", func() bool { return s.Stats().Cancelled == 1 })
	start := time.Now()
	if resp := faulty(t, url, "stall-headers:50ms", false); resp.StatusCode != 200 || time.Since(start) < 50*time.Millisecond {
		t.Error("a short stall:", resp.StatusCode, time.Since(start))
	}
}

func TestFaultsThatEndAStream(t *testing.T) {
	s, url := faultServer(t)
	for fault, want := range map[string]struct {
		payloads int
		cut      error
	}{
		"cut:0":     {0, io.ErrUnexpectedEOF},
		"cut:4":     {4, io.ErrUnexpectedEOF},
		"cut-mid:4": {4, io.ErrUnexpectedEOF},
		"reset:4":   {4, syscall.ECONNRESET},
		"cut:13":    {13, io.ErrUnexpectedEOF}, // all but [DONE]
		"no-done":   {13, nil},
	} {
		c, err := collect(t, faulty(t, url, fault, true).Body)
		if len(c.payloads) != want.payloads || !errors.Is(err, want.cut) || c.done {
			t.Errorf("%s: %d events, %v", fault, len(c.payloads), err)
		}
	}
	c, err := collect(t, faulty(t, url, "error-event:4", true).Body)
	if err != nil || len(c.payloads) != 6 || c.chunks[4].Error == nil || !c.done || c.usage != nil {
		t.Errorf("error-event: %v, %v", c.payloads, err)
	}
	eventually(t, "all slots are free", func() bool { return s.Stats().Running == 0 })
}

func TestFaultStall(t *testing.T) {
	s, url := faultServer(t)
	resp := faulty(t, url, "stall:4", true)
	read := 0
	for buf := make([]byte, 4096); read < 4; {
		n, err := resp.Body.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		read += bytes.Count(buf[:n], []byte("data: "))
	}
	resp.Body.Close()
	eventually(t, "the hang-up frees the slot", func() bool { st := s.Stats(); return st.Cancelled == 1 && st.Running == 0 })
	if got := s.Requests()[0].CompletionTokens; read != 4 || got < 3 || got > 4 { // the server may not have tried to send the fourth token
		t.Errorf("%d events, %d tokens before the stall", read, got)
	}
	start := time.Now()
	c, err := collect(t, faulty(t, url, "stall:4:60ms", true).Body)
	if err != nil || !c.done || time.Since(start) < 60*time.Millisecond {
		t.Errorf("a short stall: %v after %v", err, time.Since(start))
	}
}

func TestFaultsOfAUnaryBody(t *testing.T) {
	_, url := faultServer(t)
	for fault, want := range map[string]error{"cut:0": io.ErrUnexpectedEOF, "truncate": io.ErrUnexpectedEOF, "reset:0": syscall.ECONNRESET} {
		resp := faulty(t, url, fault, false)
		body, err := io.ReadAll(resp.Body)
		if !errors.Is(err, want) || len(body) == 0 && want == io.ErrUnexpectedEOF || int64(len(body)) >= resp.ContentLength {
			t.Errorf("%s: %d of %d bytes, %v", fault, len(body), resp.ContentLength, err)
		}
	}
	for _, fault := range []string{"slow-body:80ms", "stall:0:80ms"} {
		start := time.Now()
		a := unary(t, url, request(tenTokens), "X-Fault", fault)
		if a.Usage.Completion != 10 || time.Since(start) < 70*time.Millisecond {
			t.Errorf("%s: %+v after %v", fault, a.Usage, time.Since(start))
		}
	}
	if body := readAll(t, faulty(t, url, "garbage:0", false)); json.Valid(body) {
		t.Errorf("garbage: %s", body)
	}
}

func TestFaultsOfUsage(t *testing.T) {
	_, url := faultServer(t)
	for kind, want := range map[string]string{
		"zero": `"completion_tokens":0`, "negative": `"completion_tokens":-10`, "huge": `"completion_tokens":9223372036854775807`,
		"overflow": `"completion_tokens":1e30`, "text": `"completion_tokens":"many"`, "fraction": `"completion_tokens":10.5`, "null": `"usage":null`,
	} {
		if body := string(readAll(t, faulty(t, url, "usage:"+kind, false))); !strings.Contains(body, want) {
			t.Errorf("unary usage:%s: %s", kind, body)
		}
		resp := post(t, url+"/v1/chat/completions", request(tenTokens+`,"stream":true,`+withUsage), "X-Fault", "usage:"+kind)
		events := strings.Split(string(readAll(t, resp)), "\n\n")
		if last := events[len(events)-3]; !strings.Contains(last, want) || strings.Count(strings.Join(events, ""), "usage") != 1 {
			t.Errorf("stream usage:%s: %s", kind, last)
		}
	}
	if body := string(readAll(t, faulty(t, url, "no-usage", false))); strings.Contains(body, "usage") {
		t.Errorf("no-usage: %s", body)
	}
	const running = tenTokens + `,"stream_options":{"include_usage":true,"continuous_usage_stats":true}`
	if c := streamed(t, url, running, "X-Fault", "no-usage"); c.usage != nil || !c.done {
		t.Errorf("no-usage: %+v", c.usage)
	}
	c := streamed(t, url, running, "X-Fault", "running-usage:zero")
	if c.chunks[8].Usage == nil || c.chunks[8].Usage.Completion != 0 || c.usage.Completion != 10 {
		t.Errorf("running-usage: %+v, final %+v", c.chunks[8].Usage, c.usage)
	}
	c = streamed(t, url, tenTokens+","+withUsage, "X-Fault", "usage-on-finish")
	if last := c.chunks[len(c.chunks)-1]; len(last.Choices) != 1 || last.Choices[0].FinishReason == nil || last.Usage == nil || last.Usage.Completion != 10 {
		t.Errorf("usage-on-finish: %+v", last)
	}
	if a := unary(t, url, request(tenTokens), "X-Fault", "cached:3"); a.Usage.Details == nil || a.Usage.Details.Cached != 3 {
		t.Errorf("cached: %+v", a.Usage)
	}
}

func TestFaultsOfTheText(t *testing.T) {
	s, url := faultServer(t)
	plain := streamed(t, url, tenTokens+","+withUsage)
	if c := streamed(t, url, tenTokens+","+withUsage, "X-Fault", "ignore-max:25"); c.deltas != 35 || c.usage.Completion != 35 || !strings.HasPrefix(c.text[0], plain.text[0]) {
		t.Errorf("ignore-max: %d deltas, %+v", c.deltas, c.usage)
	}
	if c := streamed(t, url, tenTokens+","+withUsage, "X-Fault", "empty,usage:zero"); c.deltas != 0 || c.usage.Completion != 0 || c.finish[0] != "stop" || !c.done {
		t.Errorf("empty: %+v", c)
	}
	c := streamed(t, url, tenTokens+","+withUsage, "X-Fault", "reasoning:4")
	if c.deltas != 6 || c.reasoning == "" || c.reasoning+c.text[0] != plain.text[0] {
		t.Errorf("reasoning: %q, %q", c.reasoning, c.text[0])
	}
	a := unary(t, url, request(tenTokens), "X-Fault", "reasoning:4")
	if m := a.Choices[0].Message; m.ReasoningContent != c.reasoning || *m.Content != c.text[0] {
		t.Errorf("unary reasoning: %+v", m)
	}
	for _, arguments := range []string{
		streamed(t, url, tenTokens, "X-Fault", "tool-calls").arguments,
		unary(t, url, request(tenTokens), "X-Fault", "tool-calls").Choices[0].Message.ToolCalls[0].Function.Arguments,
	} {
		var got struct{ Text string }
		if err := json.Unmarshal([]byte(arguments), &got); err != nil || got.Text != plain.text[0] {
			t.Errorf("tool-calls: %v, %s", err, arguments)
		}
	}
	for _, rec := range s.Requests() {
		if rec.Outcome != "complete" {
			t.Errorf("recorded %s", rec.Outcome)
		}
	}
}

func TestFaultsOfTheWire(t *testing.T) {
	_, url := faultServer(t)
	plain := streamed(t, url, tenTokens)
	raw := func(fault string) string { return string(readAll(t, faulty(t, url, fault, true))) }

	for _, stream := range []bool{false, true} {
		resp := faulty(t, url, "gzip", stream)
		gz, err := gzip.NewReader(resp.Body)
		if err != nil || resp.Header.Get("Content-Encoding") != "gzip" {
			t.Fatal("gzip:", err, resp.Header)
		}
		if body, err := io.ReadAll(gz); err != nil || !bytes.Contains(body, []byte(`"usage"`)) {
			t.Errorf("gzip: %v, %s", err, body)
		}
	}
	if c := streamed(t, url, tenTokens, "X-Fault", "huge-line"); len(c.payloads[1]) < 1<<20 || c.text[0] != plain.text[0] {
		t.Errorf("huge-line: %d bytes", len(c.payloads[1]))
	}
	if body := readAll(t, faulty(t, url, "huge-line:5000", false)); len(body) < 5000 || !json.Valid(body) {
		t.Errorf("unary huge-line: %d bytes", len(body))
	}
	if c := streamed(t, url, tenTokens, "X-Fault", "garbage:3"); json.Valid([]byte(c.payloads[3])) || !c.done {
		t.Errorf("garbage: %s", c.payloads[3])
	}
	if c := streamed(t, url, tenTokens, "X-Fault", "merge:4"); c.deltas != 3 || c.text[0] != plain.text[0] {
		t.Errorf("merge: %d deltas of %q", c.deltas, c.text[0])
	}
	if body := raw("crlf"); strings.Count(body, "\r\n\r\n") != 14 || strings.Count(body, "\n") != 28 {
		t.Errorf("crlf: %q", body)
	}
	if body := raw("cr"); strings.Count(body, "\r\r") != 14 || strings.Contains(body, "\n") {
		t.Errorf("cr: %q", body)
	}
	if body := raw("split-data"); strings.Count(body, "data: ") != 27 { // [DONE] has no comma
		t.Errorf("split-data: %s", body)
	}
	if body := raw("comments"); strings.Count(body, ": ping\n\n") != 14 || strings.Count(body, ": inside\ndata: ") != 14 {
		t.Errorf("comments: %s", body)
	}
	if _, after, _ := strings.Cut(raw("after-done:2"), "data: [DONE]\n\n"); strings.Count(after, `" more"`) != 2 {
		t.Errorf("after-done: %s", after)
	}
	resp := faulty(t, url, "hop-headers", false)
	for _, name := range []string{"X-Hop", "Keep-Alive", "Proxy-Authenticate", "Proxy-Connection", "Upgrade", "Te"} {
		if resp.Header.Get(name) == "" || !strings.Contains(resp.Header.Get("Connection"), "X-Hop") {
			t.Errorf("hop-headers: %s is missing in %v", name, resp.Header)
		}
	}
}

func TestFaultsOfOtherEndpoints(t *testing.T) {
	s, url := serve(t, fast())
	if err := s.Faults("tokenize-status:501,health-status:503"); err != nil {
		t.Fatal(err)
	}
	if resp := post(t, url+"/tokenize", `{"prompt":"x"}`); resp.StatusCode != 501 {
		t.Error("tokenize-status:", resp.StatusCode)
	}
	resp, err := httpClient(t).Get(url + "/health")
	if err != nil || resp.StatusCode != 503 {
		t.Fatal("health-status:", resp, err)
	}
	resp.Body.Close()
	if err := s.Faults("tokenize-stall"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "POST", url+"/tokenize", strings.NewReader(`{"prompt":"x"}`))
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := httpClient(t).Do(req); err == nil {
		resp.Body.Close()
		t.Error("tokenize-stall answered", resp.StatusCode)
	}
}

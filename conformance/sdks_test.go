package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// job is one call of an SDK, and result is what the SDK's user sees. Both have the same members as
// in gosdk/main.go and sdks.mjs.
type job struct {
	SDK     string            `json:"sdk"`
	Name    string            `json:"name"`
	URL     string            `json:"url"`
	Key     string            `json:"key"`
	Model   string            `json:"model"`
	Prompt  string            `json:"prompt"`
	Stream  bool              `json:"stream"`
	Lookup  bool              `json:"lookup"`
	Input   any               `json:"input"` // texts or token ids to embed; nil: a chat
	Text    string            `json:"text"`
	Headers map[string]string `json:"headers"`

	Purchase *purchase `json:"purchase,omitempty"`
}

type result struct {
	Name    string `json:"name"`
	Raised  bool   `json:"raised"`
	Error   string `json:"error"`
	Content string `json:"content"`
}

// outcome is one case: the request, and what the user of any SDK must see.
type outcome struct {
	name   string
	unary  bool // run the case without a stream
	stream bool // run the case with a stream
	prompt string
	model  string // "": modelTokens
	lookup bool
	twice  bool // two prompts get the answer
	key    func(p *place) string
	header string // value of L402-Max-Cost-Msat
	raises string // the user must see this text in an error; "": the user must see the whole answer
	except string // an SDK that shows another error
}

func rich(p *place) string { return p.key(4_000_000) }

var outcomes = []outcome{
	{name: "complete", unary: true, stream: true, prompt: doAnswer, key: rich},
	{name: "one model", unary: true, lookup: true, key: rich},
	{name: "cut by the backend", stream: true, prompt: doCut, key: rich, raises: "the backend broke off its answer"},
	{name: "cut by the backend, unary", unary: true, prompt: doCut, key: rich, raises: "the backend broke off its answer; nothing was charged"},
	// go-openai uses all lines of a stream that are not data as the text of its error.
	{name: "signs of life, then cut", stream: true, prompt: doBeat, key: rich, raises: "the backend broke off its answer", except: "go-openai"},
	{name: "half a tool call", stream: true, prompt: doTool, key: rich, raises: "the backend broke off its answer"},
	{name: "no end", stream: true, prompt: doIdle, key: rich, raises: "the backend broke off its answer"},
	{name: "backend fails within", stream: true, prompt: doFail, key: rich, raises: "CUDA out of memory"},
	{name: "cut by the balance", stream: true, prompt: doTalk, model: modelTime, key: func(p *place) string { return p.key(10_000) },
		raises: "the balance does not cover more of the answer"},
	{name: "402", unary: true, stream: true, prompt: doAnswer, key: func(*place) string { return "sk-none" },
		raises: "pay the invoice, then repeat the request with the macaroon and the preimage"},
	{name: "400", unary: true, stream: true, prompt: doAnswer, key: rich, header: "many", raises: "the header L402-Max-Cost-Msat must be one plain number of msat"},
	{name: "404", unary: true, stream: true, prompt: doAnswer, model: "nope", key: rich, raises: "there is no such model here"},
	{name: "429", unary: true, stream: true, prompt: doAnswer, key: func(p *place) string { return p.key(4_000_000, service+"_rpm=1") },
		raises: "the token's requests per minute are used up"},
	{name: "503", unary: true, stream: true, prompt: doAnswer, model: modelDown, key: rich, raises: "nothing was charged"},
	// This case is the last, because it shuts the gateway down.
	{name: "drain", stream: true, prompt: doDrain, key: rich, raises: "the gateway is shutting down"},
}

// TestSDKs checks that a user of any SDK sees the whole of a complete answer, and an error with a
// message for any other answer. No SDK takes half an answer for a whole answer.
func TestSDKs(t *testing.T) {
	newest, oldest := buildGo(t, "go.mod"), buildGo(t, "old.mod")
	for _, s := range []struct {
		name, sdk   string
		command     []string
		streamsOnly bool
	}{
		{"openai-go", "openai-go", newest, false},
		{"openai-go before 3.43", "openai-go", oldest, false},
		{"go-openai", "go-openai", newest, false},
		{"openai-node", "openai-node", javascript(t), false},
		{"openai-node .stream()", "openai-node .stream()", javascript(t), true},
		{"langchain", "langchain", javascript(t), false},
		{"ai-sdk openai", "ai-sdk openai", javascript(t), false},
		{"ai-sdk openai-compatible", "ai-sdk openai-compatible", javascript(t), false},
	} {
		t.Run(s.name, func(t *testing.T) {
			p := newPlace(t)
			var jobs []job
			var wants []outcome
			for _, o := range outcomes {
				for _, stream := range []bool{false, true} {
					if stream && !o.stream || !stream && (!o.unary || s.streamsOnly) || o.lookup && !looksUp(s.sdk) {
						continue
					}
					jobs, wants = append(jobs, o.job(p, s.sdk, stream)), append(wants, o)
				}
			}
			results := run(t, s.command, jobs)
			for i, r := range results {
				wants[i].judge(t, s.sdk, r)
			}
		})
	}
}

// looksUp reports whether an SDK has a call for one model.
func looksUp(sdk string) bool {
	return sdk == "openai-go" || sdk == "go-openai" || sdk == "openai-node"
}

// TestAnthropicShowsWhyThereIsNoRoute checks the error of the Anthropic SDK. The gateway does not
// sell that API.
func TestAnthropicShowsWhyThereIsNoRoute(t *testing.T) {
	p := newPlace(t)
	r := run(t, javascript(t), []job{{SDK: "anthropic", Name: "unknown route", URL: p.url, Key: rich(p), Model: modelTokens, Prompt: doAnswer}})[0]
	if !r.Raised || !strings.Contains(r.Error, "there is no such route") || strings.Contains(r.Error, "{") {
		t.Errorf("the user sees %+v", r)
	}
}

func (o outcome) job(p *place, sdk string, stream bool) job {
	j := job{SDK: sdk, Name: o.name + ", stream " + strconv.FormatBool(stream), URL: p.url, Key: o.key(p), Model: o.model,
		Prompt: o.prompt, Stream: stream, Lookup: o.lookup, Headers: map[string]string{}}
	if j.Model == "" {
		j.Model = modelTokens
	}
	if o.header != "" {
		j.Headers["L402-Max-Cost-Msat"] = o.header
	}
	if o.name == "429" {
		p.spend(j)
	}
	return j
}

// spend uses up the one request of a key with a limit.
func (p *place) spend(j job) {
	p.t.Helper()
	body := `{"model":"` + j.Model + `","messages":[{"role":"user","content":"` + j.Prompt + `"}]}`
	if status := p.post(j.Key, body); status != 200 {
		p.t.Fatalf("the first request of a minute: status %d", status)
	}
}

func (o outcome) judge(t *testing.T, sdk string, r result) {
	t.Helper()
	whole := words
	switch {
	case o.lookup:
		whole = modelTokens
	case o.twice:
		whole = words + "|" + words
	}
	switch {
	case o.raises == "" && (r.Raised || r.Content != whole):
		t.Errorf("%s: the user sees %q and the error %q; want %q", r.Name, r.Content, r.Error, whole)
	case o.raises != "" && !r.Raised:
		t.Errorf("%s: the user takes %q for a whole answer", r.Name, r.Content)
	case o.raises != "" && !strings.Contains(r.Error, o.raises) && o.except != sdk:
		t.Errorf("%s: the user sees the error %q, which lacks %q", r.Name, r.Error, o.raises)
	}
}

// run makes all calls in one process.
func run(t *testing.T, command []string, jobs []job) []result {
	t.Helper()
	input, err := json.Marshal(jobs)
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	var output, complaints bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), &output, &complaints
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, complaints.Bytes())
	}
	var results []result
	if err := json.Unmarshal(output.Bytes(), &results); err != nil || len(results) != len(jobs) {
		t.Fatalf("%d results of %d jobs: %v\n%s", len(results), len(jobs), err, output.Bytes())
	}
	for i := range jobs {
		if results[i].Name != jobs[i].Name {
			t.Fatalf("result %d is of %q, want %q", i, results[i].Name, jobs[i].Name)
		}
	}
	return results
}

// javascript returns the command that runs sdks.mjs. The SDKs need Node.js 22. When the machine's
// Node.js is older, the command uses the Node.js in the packages beside this file.
func javascript(t *testing.T) []string {
	t.Helper()
	if _, err := os.Stat("node_modules/openai"); err != nil {
		t.Fatal("the SDKs for JavaScript are not installed: run make conformance at the top of the tree")
	}
	arch := map[string]string{"amd64": "x64"}[runtime.GOARCH]
	if arch == "" {
		arch = runtime.GOARCH
	}
	own := filepath.Join("node_modules", "node-"+runtime.GOOS+"-"+arch, "bin", "node")
	if _, err := os.Stat(own); err == nil {
		return []string{own, "sdks.mjs"}
	}
	version, err := exec.CommandContext(t.Context(), "node", "--version").Output()
	if err != nil {
		t.Fatalf("Node.js 22 or newer is needed: %v", err)
	}
	major, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(string(version)), "v"), ".")
	if n, err := strconv.Atoi(major); err != nil || n < 22 {
		t.Fatalf("Node.js 22 or newer is needed, this is %s", version)
	}
	return []string{"node", "sdks.mjs"}
}

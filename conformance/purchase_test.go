package conformance

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/internal/devnet/inference"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering/format"
)

// purchase and bought have the same members as in gosdk/purchase.go and purchase.mjs.
type purchase struct {
	API         string `json:"api"`
	Input       any    `json:"input"`
	N           int    `json:"n,omitempty"`
	MaxTokens   int    `json:"max_tokens,omitempty"`
	Encoding    string `json:"encoding,omitempty"`
	Dimensions  int    `json:"dimensions,omitempty"`
	AbortEvents int    `json:"abort_events,omitempty"`
	AbortMS     int    `json:"abort_ms,omitempty"`
}

type bought struct {
	Choices    int     `json:"choices"`
	Events     int     `json:"events"`
	Prompt     int     `json:"prompt_tokens"`
	Completion int     `json:"completion_tokens"`
	Finish     string  `json:"finish"`
	Vectors    int     `json:"vectors"`
	Dimensions int     `json:"dimensions"`
	Norm       float64 `json:"norm"`
}

// shop is a gateway in front of the demo's inference server, which keeps its own counts.
type shop struct {
	*place
	server *inference.Server
}

func newShop(t *testing.T) *shop {
	t.Helper()
	server, err := inference.New(inference.Config{Model: modelTokens, TokensPerSecond: 400, Record: true, AllowFaults: true, Seed: 11})
	must(t, err)
	counts := true
	known := format.Setting{Engine: format.EngineGeneric, Tokenize: &counts, ContinuousUsage: &counts}
	return &shop{newPlaceBefore(t, func(*place) http.Handler { return server.Handler() }, map[string]format.Setting{"up": known}), server}
}

// requests returns the requests to the server's API routes.
func (s *shop) requests() []inference.Recorded {
	return slices.DeleteFunc(s.server.Requests(), func(r inference.Recorded) bool { return strings.HasSuffix(r.Path, "tokenize") })
}

// truth returns the server's own record of its nth request, once no request runs.
func (s *shop) truth(n int) inference.Recorded {
	s.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		all := s.requests()
		if n < len(all) && all[n].Outcome != "running" {
			return all[n]
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("the server got %d requests, the last of which still runs", len(all))
		}
	}
}

// deal is one purchase and its expected result.
type deal struct {
	name    string
	stream  bool
	headers map[string]string
	credit  l402.Msat // 0: more than enough
	buys    purchase
	aborts  bool
	want    bought // the expected choices, vectors and dimensions, and finish where it is certain
}

const prompt = "The gate is"

// longInput returns n different texts to embed.
func longInput(n int) []string {
	texts := make([]string, n)
	for i := range texts {
		texts[i] = fmt.Sprintf("The river, %d days after the rain.", i)
	}
	return texts
}

var (
	ids   = []int{72, 101, 108, 108, 111}
	lists = [][]int{{72, 101, 108}, {108, 111}, {7}}
)

var deals = []deal{
	{name: "a text", buys: purchase{API: "completions", Input: prompt, MaxTokens: 9}, want: bought{Choices: 1}},
	{name: "a text, streamed", stream: true, buys: purchase{API: "completions", Input: prompt, MaxTokens: 9}, want: bought{Choices: 1}},
	{name: "no cap", buys: purchase{API: "completions", Input: prompt}, want: bought{Choices: 1}},
	{name: "a batch", buys: purchase{API: "completions", Input: []string{prompt, "Water runs", "A"}, N: 2, MaxTokens: 5}, want: bought{Choices: 6}},
	{name: "a batch, streamed", stream: true, buys: purchase{API: "completions", Input: []string{prompt, "Water runs", "A"}, N: 2, MaxTokens: 5}, want: bought{Choices: 6}},
	{name: "tokens", buys: purchase{API: "completions", Input: ids, MaxTokens: 7}, want: bought{Choices: 1}},
	{name: "tokens, streamed", stream: true, buys: purchase{API: "completions", Input: ids, MaxTokens: 7}, want: bought{Choices: 1}},
	{name: "lists of tokens", buys: purchase{API: "completions", Input: lists, N: 2, MaxTokens: 3}, want: bought{Choices: 6}},
	{name: "lists of tokens, streamed", stream: true, buys: purchase{API: "completions", Input: lists, N: 2, MaxTokens: 3}, want: bought{Choices: 6}},
	{name: "shortened to the balance", stream: true, credit: 60, headers: map[string]string{"L402-Allow-Truncate": "1"},
		buys: purchase{API: "completions", Input: prompt, MaxTokens: 200}, want: bought{Choices: 1}},
	{name: "left within", stream: true, aborts: true, buys: purchase{API: "completions", Input: []string{prompt, "Water runs"}, MaxTokens: 200, AbortEvents: 12}},
	{name: "left within, tokens", stream: true, aborts: true, buys: purchase{API: "completions", Input: lists, MaxTokens: 200, AbortEvents: 12}},

	{name: "a text to embed", buys: purchase{API: "embeddings", Input: "The river."}, want: bought{Vectors: 1, Dimensions: 64}},
	{name: "a batch to embed", buys: purchase{API: "embeddings", Input: longInput(100), Dimensions: 16}, want: bought{Vectors: 100, Dimensions: 16}},
	{name: "tokens to embed", buys: purchase{API: "embeddings", Input: ids}, want: bought{Vectors: 1, Dimensions: 64}},
	{name: "lists of tokens to embed", buys: purchase{API: "embeddings", Input: lists, Encoding: "float"}, want: bought{Vectors: 3, Dimensions: 64}},
	{name: "left within a batch", aborts: true, headers: map[string]string{"X-Fault": "slow-body:20s"},
		buys: purchase{API: "embeddings", Input: longInput(20), AbortMS: 400}},
}

// largest holds the largest batches. Their answers have 45 MB in base64, which openai-node requests
// by itself, and about 25 MB as numbers.
var largest = map[string]deal{
	"openai-node": {name: "the largest batch", buys: purchase{API: "embeddings", Input: longInput(2048), Dimensions: 4096}, want: bought{Vectors: 2048, Dimensions: 4096}},
	"openai-go":   {name: "the largest batch", buys: purchase{API: "embeddings", Input: longInput(2048), Dimensions: 1024}, want: bought{Vectors: 2048, Dimensions: 1024}},
}

// TestSDKsPayWhatTheBackendCounts buys in every form through OpenAI's own SDKs. Each charge equals
// what the backend counted, to the token, and the users of the SDKs see the same numbers.
func TestSDKsPayWhatTheBackendCounts(t *testing.T) {
	for sdk, command := range map[string][]string{"openai-go": buildGo(t, "go.mod"), "openai-node": javascript(t)} {
		t.Run(sdk, func(t *testing.T) {
			s := newShop(t)
			bargains := append(slices.Clone(deals), largest[sdk])
			jobs := make([]job, len(bargains))
			for i, d := range bargains {
				jobs[i] = job{SDK: sdk, Name: d.name, URL: s.url, Key: rich(s.place), Model: modelTokens, Stream: d.stream, Headers: d.headers, Purchase: &bargains[i].buys}
				if d.credit > 0 {
					jobs[i].Key = s.key(d.credit)
				}
			}
			for i, r := range run(t, command, jobs) {
				var got bought
				if err := json.Unmarshal([]byte(r.Content), &got); err != nil {
					t.Fatalf("%s: %+v: %v", r.Name, r, err)
				}
				bargains[i].judge(t, r, got, s.truth(i), s.settled(jobs[i].Key).Charged)
			}
		})
	}
}

// judge compares what a user saw and paid with what the backend did.
func (d deal) judge(t *testing.T, r result, got bought, did inference.Recorded, charged int) {
	t.Helper()
	right := did.PromptTokens + 2*did.CompletionTokens
	switch {
	case d.aborts && d.buys.API == "embeddings": // the tokenizer counts, because the answer has no usage
		if charged < right*3/4 || charged > right*5/4 {
			t.Errorf("%s: charged %d msat, the backend counted %d", d.name, charged, right)
		}
	case d.aborts:
		least := did.PromptTokens + 2*got.Events
		if charged < least || charged > right || did.Outcome != "cancelled" || got.Events < d.buys.AbortEvents {
			t.Errorf("%s: charged %d msat for %d events, the backend generated %+v tokens for %d (%s)", d.name, charged, got.Events, did.CompletionTokens, did.PromptTokens, did.Outcome)
		}
	case r.Raised:
		t.Errorf("%s: %s", d.name, r.Error)
	case charged != right || got.Prompt != did.PromptTokens || got.Completion != did.CompletionTokens || right == 0:
		t.Errorf("%s: charged %d msat, the backend counted %d and %d tokens, the user sees %+v", d.name, charged, did.PromptTokens, did.CompletionTokens, got)
	case got.Choices != d.want.Choices || got.Vectors != d.want.Vectors || got.Dimensions != d.want.Dimensions:
		t.Errorf("%s: the user sees %+v", d.name, got)
	case got.Vectors > 0 && math.Abs(got.Norm-1) > 1e-3:
		t.Errorf("%s: the last vector has the squared length %v, not 1", d.name, got.Norm)
	case d.credit > 0 && (charged > int(d.credit) || got.Finish != "length"):
		t.Errorf("%s: charged %d msat of %d, the answer ends with %q", d.name, charged, d.credit, got.Finish)
	}
}

// refused returns calls that the gateway refuses, each for another reason.
func (s *shop) refused(sdk string) (jobs []job) {
	for api, input := range map[string]any{"completions": prompt, "embeddings": longInput(3)} {
		for name, j := range map[string]job{
			"400":            {Purchase: &purchase{Input: []any{}}},
			"402":            {Key: "sk-none"},
			"402 of a token": {Key: s.key(1)},
			"404":            {Model: "nope"},
			"412":            {Headers: map[string]string{"L402-Max-Cost-Msat": "1"}},
			"429":            {Key: s.key(4_000_000, service+"_rpm=1")},
			"502":            {Headers: map[string]string{"X-Fault": "status:500"}},
			"503":            {Model: modelDown},
		} {
			j.SDK, j.Name, j.URL = sdk, api+" "+name, s.url
			if j.Key == "" {
				j.Key = rich(s.place)
			}
			if j.Model == "" {
				j.Model = modelTokens
			}
			if j.Purchase == nil {
				j.Purchase = &purchase{Input: input}
			}
			j.Purchase.API = api
			jobs = append(jobs, j)
		}
	}
	return jobs
}

// TestSDKsSeeRefusals checks that a user of the SDKs sees the words of the refusal's detail,
// whatever the reason, and pays nothing.
func TestSDKsSeeRefusals(t *testing.T) {
	for sdk, command := range map[string][]string{"openai-go": buildGo(t, "go.mod"), "openai-node": javascript(t)} {
		t.Run(sdk, func(t *testing.T) {
			s := newShop(t)
			jobs := s.refused(sdk)
			words, before := make([]string, len(jobs)), make([]int, len(jobs))
			minute := time.Now().Truncate(time.Minute)
			for i, j := range jobs {
				body, err := json.Marshal(map[string]any{"model": j.Model, inputOf[j.Purchase.API]: j.Purchase.Input})
				must(t, err)
				ask := func() string { return s.detail("/v1/"+j.Purchase.API, j.Key, string(body), j.Headers) }
				if strings.HasSuffix(j.Name, "429") {
					ask() // this request uses up the limit of the minute
				}
				words[i], before[i] = ask(), s.settled(j.Key).Charged
			}
			results := run(t, command, jobs)
			sameMinute := time.Now().Truncate(time.Minute).Equal(minute)
			for i, r := range results {
				if strings.HasSuffix(r.Name, "429") && !sameMinute {
					continue // the next minute has begun, so the request is served
				}
				if !r.Raised || words[i] == "" || !strings.Contains(r.Error, words[i]) {
					t.Errorf("%s: the user sees %q, which lacks %q", r.Name, r.Error, words[i])
				}
				if now := s.settled(jobs[i].Key).Charged; now != before[i] {
					t.Errorf("%s: charged %d msat", r.Name, now-before[i])
				}
			}
		})
	}
}

// inputOf is the member that has the texts, by API.
var inputOf = map[string]string{"completions": "prompt", "embeddings": "input"}

// TestSDKsRaiseOnHalfTheVectors checks that an answer that breaks off is an error for the user. A
// short one costs nothing, and the error has a message. Of a long one, whose header was already
// sent, the vectors are charged that were delivered.
func TestSDKsRaiseOnHalfTheVectors(t *testing.T) {
	for sdk, command := range map[string][]string{"openai-go": buildGo(t, "go.mod"), "openai-node": javascript(t)} {
		s := newShop(t)
		fault := map[string]string{"X-Fault": "cut:1"}
		jobs := []job{
			{Name: "short", Purchase: &purchase{API: "embeddings", Input: longInput(3)}},
			{Name: "long", Purchase: &purchase{API: "embeddings", Input: longInput(2048), Dimensions: 1024}},
		}
		for i := range jobs {
			jobs[i].SDK, jobs[i].URL, jobs[i].Key, jobs[i].Model, jobs[i].Headers = sdk, s.url, rich(s.place), modelTokens, fault
		}
		for i, r := range run(t, command, jobs) {
			if !r.Raised || jobs[i].Name == "short" && !strings.Contains(r.Error, "the backend broke off its answer; nothing was charged") {
				t.Errorf("%s, %s: the user sees %+v", sdk, r.Name, r)
			}
			most := 0
			if jobs[i].Name == "long" { // half of it comes
				most = s.truth(i).PromptTokens * 3 / 4
			}
			if charged := s.settled(jobs[i].Key).Charged; charged > most || s.truth(i).Outcome != "fault" {
				t.Errorf("%s, %s: charged %d msat of %d for %+v", sdk, r.Name, charged, most, s.truth(i).Outcome)
			}
		}
	}
}

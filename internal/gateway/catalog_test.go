package gateway_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/internal/gateway"
	"sluice.example/sluice/internal/gateway/intake"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering/format"
)

// swapped is a rig whose configuration the test can change.
type swapped struct {
	*rig
	cfg gateway.Config
}

func newSwapped(t *testing.T, configure ...func(*setup)) *swapped {
	t.Helper()
	s := &swapped{}
	s.rig = newRig(t, append(configure, func(c *setup) { c.gateway = func(cfg *gateway.Config) { s.cfg = *cfg } })...)
	return s
}

// swap edits the configuration and puts it in force.
func (s *swapped) swap(edit func(*gateway.Config)) {
	s.t.Helper()
	next := s.cfg
	next.Services = []gateway.Service{s.cfg.Services[0]}
	next.Services[0].Models = []gateway.Model{s.cfg.Services[0].Models[0]}
	edit(&next)
	swap, err := s.gw.Prepare(next, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	swap()
	s.cfg = next
}

// TestSwapChangesWhatNewRequestsSee changes the limits, origins, keys and the operator's token of a
// gateway that serves.
func TestSwapChangesWhatNewRequestsSee(t *testing.T) {
	r := newSwapped(t)
	k := r.buy(100_000)
	r.chat(k, request()).want(t, http.StatusOK)
	r.swap(func(c *gateway.Config) { c.MaxBody = 64 })
	r.chat(k, request()).wantProblem(t, http.StatusRequestEntityTooLarge, "invalid-request")
	r.swap(func(c *gateway.Config) {
		c.MaxBody, c.AdminToken = 1<<20, "another-admin-token"
		c.Services[0].Origins = []string{"https://app.example"}
		c.Services[0].Models[0].Limits.MaxCompletion = 10
	})
	a := r.do("GET", "/v1/models", "", header{"Origin": "https://app.example"})
	if a.header.Get("Access-Control-Allow-Origin") != "https://app.example" {
		t.Errorf("a page of a new origin is told %v", a.header)
	}
	if a := r.chat(k, request()); !strings.Contains(string(a.body), `"completion_tokens":10}`) {
		t.Errorf("beyond the new cap: %d %s", a.status, a.body)
	}
	if a := r.ask("GET", "/admin/status", adminToken); a.status != http.StatusUnauthorized {
		t.Errorf("the former admin token: status %d", a.status)
	}
	if a := r.ask("GET", "/admin/status", "another-admin-token"); a.status != http.StatusOK {
		t.Errorf("the new admin token: status %d", a.status)
	}
	r.swap(func(c *gateway.Config) { c.Services[0].Models[0].Limits.MaxCompletion = 256 })
	second := l402.MasterKey{ID: "second", State: l402.KeyMint, Secret: [32]byte{9}}
	ring := func(state l402.KeyState) *l402.Keyring {
		keys, err := l402.NewKeyring(r.ledger.ID(), []l402.MasterKey{second, {ID: "test", State: state, Secret: [32]byte{1, 2, 3}}})
		if err != nil {
			t.Fatal(err)
		}
		return keys
	}
	offered := func() string {
		t.Helper()
		hash, _ := r.do("POST", chatPath, request(), header{"L402-Client-Nonce": strings.Repeat("n", 32)}).json(t)["payment_hash"].(string)
		return hash
	}
	before := offered()
	if again := offered(); before == "" || again != before {
		t.Errorf("a challenge is not repeated: %q, then %q", before, again)
	}
	r.swap(func(c *gateway.Config) { c.Keys = ring(l402.KeyVerify) })
	if offered() == before {
		t.Error("a challenge of the former key is repeated")
	}
	r.chat(k, request()).want(t, http.StatusOK)
	fresh := r.buy(100_000)
	r.swap(func(c *gateway.Config) { c.Keys = ring(l402.KeyRevoked) })
	if a := r.chat(k, request()); a.status == http.StatusOK {
		t.Error("a token of a revoked key is served")
	}
	r.chat(fresh, request()).want(t, http.StatusOK)
	r.swap(func(c *gateway.Config) {
		c.Challenges = &intake.ChallengeLimits{Total: intake.Rate{PerSecond: 0.001, Burst: 1}}
	})
	r.do("POST", chatPath, "", nil).want(t, http.StatusPaymentRequired)
	r.do("POST", chatPath, "", nil).wantProblem(t, http.StatusTooManyRequests, "rate-limited")
	r.swap(func(c *gateway.Config) { c.Challenges = nil })
	r.do("POST", chatPath, "", nil).want(t, http.StatusPaymentRequired)
}

// TestRequestKeepsItsCatalog: a request whose body comes while the catalog changes is served with
// the catalog in force when the request began, although the new catalog does not have the model.
func TestRequestKeepsItsCatalog(t *testing.T) {
	r := newSwapped(t)
	k := r.buy(100_000)
	body, writer := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), "POST", r.url+chatPath, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", k.String())
	answered := make(chan int, 1)
	go func() {
		resp, err := r.client.Do(req)
		if err != nil {
			answered <- 0
			return
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		answered <- resp.StatusCode
	}()
	text := request()
	if _, err := io.WriteString(writer, text[:20]); err != nil {
		t.Fatal(err)
	}
	r.until("the request has begun", func() bool { return strings.Contains(r.metrics(), "sluice_http_in_flight 1") })
	// The fleet changes too: another model replaces the first.
	u, err := url.Parse("http://127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	kept := r.fleet.Pool(testModel).Backends()[0]
	plan, err := r.fleet.Prepare(gpu.Config{
		Backends: []gpu.BackendConfig{r.backendConfig(), {Name: "new", URL: u, Slots: 1}},
		Pools:    []gpu.PoolConfig{{Model: "other", Backends: []string{"gpu0", "new"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	next := r.cfg
	other := r.cfg.Services[0].Models[0]
	other.Name = "other"
	next.Services = []gateway.Service{r.cfg.Services[0]}
	next.Services[0].Models, next.Profiles, next.MaxBody = []gateway.Model{other}, nil, 30
	swap, err := r.gw.Prepare(next, plan.Pool)
	if err != nil {
		t.Fatal(err)
	}
	if leaving := plan.Commit(); len(leaving) != 0 || r.fleet.Named("gpu0") != kept {
		t.Fatalf("%d backends leave", len(leaving))
	}
	swap()
	r.chat(k, text).wantProblem(t, http.StatusRequestEntityTooLarge, "invalid-request")
	if _, err := io.WriteString(writer, text[20:]); err != nil {
		t.Fatal(err)
	}
	writer.Close()
	if status := <-answered; status != http.StatusOK {
		t.Errorf("the request that began before is answered %d", status)
	}
	if c := r.lastCharge(k); c.Model != testModel || c.Outcome != "complete" {
		t.Errorf("charged %+v", c)
	}
	if strings.Contains(r.metrics(), `sluice_price_epoch{model="`+testModel+`"}`) {
		t.Error("the metrics show the price of a model that is gone")
	}
}

// backendConfig returns the first configuration of the rig's only backend.
func (s *swapped) backendConfig() gpu.BackendConfig {
	s.t.Helper()
	b := s.fleet.Pool(testModel).Backends()[0]
	u, err := url.Parse(s.backendURL)
	if err != nil {
		s.t.Fatal(err)
	}
	return gpu.BackendConfig{Name: b.Name(), URL: u, APIKey: "backend-key", Slots: 32, Models: map[string]string{testModel: "upstream/" + testModel}}
}

func TestPrepareRefusesAndChangesNothing(t *testing.T) {
	r := newSwapped(t)
	for name, edit := range map[string]func(*gateway.Config){
		"no service":        func(c *gateway.Config) { c.Services = nil },
		"no keys":           func(c *gateway.Config) { c.Keys = nil },
		"an unknown pool":   func(c *gateway.Config) { c.Services[0].Models[0].Name = "none" },
		"a bad header":      func(c *gateway.Config) { c.Services[0].ForwardHeaders = []string{"Authorization"} },
		"a bad proxy":       func(c *gateway.Config) { c.ForwardedHeader = "X-Real-Ip" },
		"a long text":       func(c *gateway.Config) { c.ProductText = strings.Repeat("x", 201) },
		"a service twice":   func(c *gateway.Config) { c.Services = append(c.Services, c.Services[0]) },
		"no whole satoshis": func(c *gateway.Config) { c.Services[0].MaxPurchase = 1 },
	} {
		next := r.cfg
		next.Services = []gateway.Service{r.cfg.Services[0]}
		next.Services[0].Models = []gateway.Model{r.cfg.Services[0].Models[0]}
		edit(&next)
		if _, err := r.gw.Prepare(next, nil); err == nil {
			t.Errorf("%s passes", name)
		}
	}
	r.chat(r.buy(100_000), request()).want(t, http.StatusOK)
}

// TestSwapKeepsWhatWasLearnt: a swap keeps what the gateway knows of a backend's engine, unless the
// owner says something else of that backend.
func TestSwapKeepsWhatWasLearnt(t *testing.T) {
	r := newSwapped(t, func(s *setup) { s.profile = format.Setting{} })
	known := func() string {
		t.Helper()
		_, rest, _ := strings.Cut(string(r.ask("GET", "/admin/backends", adminToken).body), `"known_by":"`)
		by, _, _ := strings.Cut(rest, `"`)
		return by
	}
	probing, stop := context.WithCancel(t.Context())
	stop()
	r.gw.Probe(probing) // sends no question, because all engines are known
	if by := known(); by != "nothing yet" {
		t.Fatalf("known by %q", by)
	}
	r.swap(func(c *gateway.Config) { c.Profiles = map[string]format.Setting{"gpu0": {Engine: format.EngineVLLM}} })
	r.gw.Probe(t.Context())
	if by := known(); by != "configuration" {
		t.Errorf("after the owner said it: known by %q", by)
	}
	r.swap(func(c *gateway.Config) { c.MaxBody = 1 << 20 })
	if by := known(); by != "configuration" {
		t.Errorf("after a change of something else: known by %q", by)
	}
}

// operator replaces the configuration file.
type operator struct{ err error }

func (o *operator) Reload(context.Context) (any, error) {
	return map[string]int{"generation": 2}, o.err
}
func (o *operator) Compare([]byte) (any, error) { return map[string]int{"generation": 1}, o.err }
func (o *operator) Status() gateway.ConfigStatus {
	s := gateway.ConfigStatus{Generation: 7, SuccessAt: time.Unix(1_700_000_000, 0), Succeeded: 3, Refused: 1, Above: []string{"x"}}
	if o.err != nil {
		s.Last = &gateway.ReloadStatus{Trigger: "file", Error: o.err.Error()}
	}
	return s
}

func TestOperatorOfTheConfiguration(t *testing.T) {
	o := &operator{}
	r := newRig(t, func(s *setup) { s.gateway = func(c *gateway.Config) { c.Operator = o } })
	for _, path := range []string{"/admin/reload", "/admin/config/diff"} {
		if a := r.ask("POST", path, ""); a.status != http.StatusUnauthorized {
			t.Errorf("%s without the token: %d", path, a.status)
		}
		if a := r.ask("POST", path, adminToken); a.status != http.StatusOK || !strings.Contains(string(a.body), `"generation"`) {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	want := []string{"sluice_config_last_reload_successful 1", "sluice_config_last_reload_success_timestamp_seconds 1.7e+09", "sluice_config_generation 7",
		`sluice_config_reloads_total{result="in_force"} 3`, `sluice_config_reloads_total{result="refused"} 1`, "sluice_config_changes_above 1"}
	for _, line := range want {
		if m := r.metrics(); !strings.Contains(m, line+"\n") {
			t.Errorf("the metrics lack %q", line)
		}
	}
	o.err = errors.New("line 3: listen: is the moon")
	for _, path := range []string{"/admin/reload", "/admin/config/diff"} {
		p := r.ask("POST", path, adminToken).wantProblem(t, http.StatusBadRequest, "invalid-request")
		if p["detail"] != o.err.Error() {
			t.Errorf("%s is refused with %v", path, p["detail"])
		}
	}
	if !strings.Contains(r.metrics(), "sluice_config_last_reload_successful 0\n") {
		t.Error("the metrics do not show a refused reload")
	}
	for _, path := range []string{"/admin/config", "/admin/status"} {
		if a := r.ask("GET", path, adminToken); !strings.Contains(string(a.body), "is the moon") {
			t.Errorf("%s: %s", path, a.body)
		}
	}
}

// want checks the status of an answer.
func (a *answer) want(t *testing.T, status int) {
	t.Helper()
	if a.status != status {
		t.Errorf("status %d, want %d: %s", a.status, status, a.body)
	}
}

package e2e

import (
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice.example/sluice/internal/devnet/inference"
	"sluice.example/sluice/internal/lab/labtest"
	"sluice.example/sluice/internal/lab/proc"
	"sluice.example/sluice/pricing"
)

// saleOfTwo sells the model demo from two backends. What a test changes stands out.
const saleOfTwo = `    models:
      - {name: demo, backends: [one, two], context_tokens: 4096, max_completion_tokens: 256, prices: {input: 1000 sat/Mtok, output: 4000 sat/Mtok}, pricing: {policy: static}}
backends:
  - {name: one, url: «BACKEND», slots: 256, continuous_usage: true}
  - {name: two, url: «BACKEND», slots: 256, continuous_usage: true}
`

// The streams of TestStreamsOutliveReloads: so many, each of so many tokens; and how
// often the configuration changes meanwhile.
const (
	reloadStreams = 200
	reloadTokens  = 250
	reloads       = 50
)

// reloading is a gateway whose configuration is changed while streams are open.
type reloading struct {
	*own
	client *gateway // over TLS
	price  int      // of an output token, in msat
	two    bool     // there is a second backend
	watch  bool     // the gateway watches its file
}

// TestStreamsOutliveReloads keeps 200 streams open while the configuration changes 50
// times: prices, a backend that leaves and comes back, the certificate, files that are
// wrong. No stream breaks, and each is charged at the rates with which it began.
func TestStreamsOutliveReloads(t *testing.T) {
	t.Parallel()
	server, url, err := startInference(t.Context(), inference.Config{Model: "demo", TokensPerSecond: 10, MaxModelLen: 4096, Slots: 1024, Seed: 5, Record: true})
	if err != nil {
		t.Fatal(err)
	}
	cert, key, _ := selfSigned(t)
	r := &reloading{price: 4, two: true, own: startGateway(t, func(s *setup) {
		s.Cert, s.Key, s.BackendURL, s.Sale, s.Drain = cert, key, url, saleOfTwo, "60s"
	})}
	r.client = r.over(t, &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, MaxIdleConnsPerHost: 256})
	k := r.client.unlocked(t, r.client.buy(t, 10_000), 2_000_000) // no quote holds the first price
	list := newStreams(t, r.client, k)
	for range reloadStreams {
		list.begin(4)
	}
	pace := time.NewTicker(200 * time.Millisecond) // so that all of it happens within the streams
	defer pace.Stop()
	for n := range reloads {
		<-pace.C
		r.change(t, n)
		if n%10 == 5 { // another one, at the rates of now
			list.begin(r.price)
		}
	}
	if open := r.openRequests(t); open != len(list.streams) && !proc.RaceDetector { // the detector slows reloads down
		t.Errorf("%d requests are open after the reloads, want all %d", open, len(list.streams))
	}
	list.wantPaid()
	if got := len(server.Requests()); got < len(list.streams) || got > len(list.streams)+200 { // and health checks
		t.Errorf("the backend saw %d requests for %d streams", got, len(list.streams))
	}
	r.verify(t)
}

// change makes the nth change and wants a new request to see it within a second.
func (r *reloading) change(t *testing.T, n int) {
	t.Helper()
	switch n % 5 {
	case 0, 2:
		r.price = 4 + n%7
	case 1:
		r.two = !r.two
	case 3:
		r.renew(t)
	case 4:
		r.refuse(t)
		return
	}
	r.save(t)
	switch n % 3 {
	case 0:
		r.own.reload(t)
	case 1:
		r.operator(t, http.MethodPost, "/admin/reload").want(t, http.StatusOK)
	case 2:
		before := r.metric(t, `sluice_config_reloads_total{result="in_force"}`)
		r.signal(t, syscall.SIGHUP)
		labtest.Eventually(t, time.Second, "SIGHUP reloads", func() error {
			if now := r.metric(t, `sluice_config_reloads_total{result="in_force"}`); now == before {
				return fmt.Errorf("still %v reloads", now)
			}
			return nil
		})
	}
	labtest.Eventually(t, time.Second, "a new request sees the catalog", func() error { return r.seen(t) })
}

// seen compares what a new request, and the operator, see with the file.
func (r *reloading) seen(t *testing.T) error {
	t.Helper()
	list := decode[struct {
		Data []struct {
			L402 struct{ Rates pricing.Rates }
		}
	}](t, r.client.do(t, http.MethodGet, "/v1/models", "", nil).want(t, http.StatusOK).body)
	if got := list.Data[0].L402.Rates[pricing.OutputTokens]; got != int64(r.price)*1_000_000 {
		return fmt.Errorf("an output token costs %d msat/Mtok, want %d msat", got, r.price)
	}
	if got := strings.Contains(string(r.operator(t, http.MethodGet, "/admin/backends").body), `"name":"two"`); got != r.two {
		return fmt.Errorf("the second backend is there: %t, want %t", got, r.two)
	}
	conn, err := tls.Dial("tcp", r.Listen, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		return err
	}
	defer conn.Close()
	pemBytes, err := os.ReadFile(r.Cert)
	if err != nil {
		return err
	}
	if block, _ := pem.Decode(pemBytes); string(block.Bytes) != string(conn.ConnectionState().PeerCertificates[0].Raw) {
		return fmt.Errorf("the certificate is an old one")
	}
	return nil
}

// save writes the file as it should be now.
func (r *reloading) save(t *testing.T) {
	t.Helper()
	r.Sale = strings.Replace(saleOfTwo, "4000 sat", strconv.Itoa(1000*r.price)+" sat", 1)
	if !r.two {
		first, _, _ := strings.Cut(r.Sale, "  - {name: two")
		r.Sale = strings.Replace(first, "[one, two]", "[one]", 1)
	}
	if r.watch {
		r.Sale += "watch: true\n"
	}
	if err := r.write(); err != nil {
		t.Fatal(err)
	}
}

// renew replaces the certificate's files, as the one who renews them does.
func (r *reloading) renew(t *testing.T) {
	t.Helper()
	cert, key, _ := selfSigned(t)
	for from, to := range map[string]string{cert: r.Cert, key: r.Key} {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
}

// refuse wants a file that is wrong to be refused with line and reason, and all to stay
// as it was.
func (r *reloading) refuse(t *testing.T) {
	t.Helper()
	before := r.metric(t, "sluice_config_generation")
	r.save(t)
	good, err := os.ReadFile(r.config)
	if err != nil {
		t.Fatal(err)
	}
	defer r.save(t)
	if err := os.WriteFile(r.config, append(good, "surprise: 1\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	p := r.operator(t, http.MethodPost, "/admin/reload").wantProblem(t, http.StatusBadRequest, "invalid-request")
	if detail, _ := p["detail"].(string); !strings.Contains(detail, "line ") || !strings.Contains(detail, "surprise: unknown key") {
		t.Errorf("a bad file is refused with %q", detail)
	}
	if after := r.metric(t, "sluice_config_generation"); after != before || r.metric(t, "sluice_config_last_reload_successful") != 0 {
		t.Errorf("generation %v became %v by a bad file", before, after)
	}
	if err := r.seen(t); err != nil {
		t.Errorf("after a bad file: %v", err)
	}
}

// openRequests is how many paid requests are open.
func (r *reloading) openRequests(t *testing.T) int {
	t.Helper()
	return decode[struct {
		Open int `json:"open_requests"`
	}](t, r.operator(t, http.MethodGet, "/admin/status").want(t, http.StatusOK).body).Open
}

// reload runs `gateway reload`.
func (g *own) reload(t *testing.T) string {
	t.Helper()
	out, err := g.ask("reload")
	if err != nil {
		t.Fatalf("gateway reload: %v\n%s", err, out)
	}
	return out
}

// ask runs a subcommand that asks the running gateway.
func (g *own) ask(name string, more ...string) (string, error) {
	out, err := exec.Command(filepath.Join(binaries, "gateway"), append([]string{name, "--config", g.config}, more...)...).CombinedOutput()
	return string(out), err
}

// streams are open streams and what each is to be charged at.
type streams struct {
	t       *testing.T
	gateway *gateway
	k       credential
	reading sync.WaitGroup
	mu      sync.Mutex
	streams []*stream
	prices  []int // of an output token, in msat
	ends    map[*stream]ended
}

func newStreams(t *testing.T, g *gateway, k credential) *streams {
	return &streams{t: t, gateway: g, k: k, ends: map[*stream]ended{}}
}

// begin opens a stream while an output token has this price.
func (l *streams) begin(price int) {
	l.t.Helper()
	s := l.gateway.stream(l.t, l.k, chat("max_tokens", strconv.Itoa(reloadTokens)))
	l.streams, l.prices = append(l.streams, s), append(l.prices, price)
	l.reading.Go(func() {
		_, err := io.Copy(io.Discard, s.body)
		end := s.ended(err == nil)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.ends[s] = end
	})
}

// wantPaid waits for all streams and wants them whole, and charged at their prices.
func (l *streams) wantPaid() {
	l.t.Helper()
	l.reading.Wait()
	book := map[string]charge{}
	list := l.gateway.do(l.t, http.MethodGet, "/l402/usage?limit=1000", "", l.k.header()).want(l.t, http.StatusOK)
	for _, c := range decode[struct{ Charges []charge }](l.t, list.body).Charges {
		book[c.Request] = c
	}
	sum := int64(0)
	for i, s := range l.streams {
		end, c := l.ends[s], book[s.requestID()]
		end.complete(l.t)
		sum += c.Charged
		want := c.Usage.Input + int64(l.prices[i])*c.Usage.Output
		if c.Outcome != "complete" || c.Usage.Output != reloadTokens || c.Charged != want || c.Charged != end.cost ||
			c.Rates[pricing.OutputTokens] != int64(l.prices[i])*1_000_000 || c.Unbilled != 0 {
			l.t.Errorf("stream %d, begun at %d msat a token, was told %d msat: %+v", i, l.prices[i], end.cost, c)
		}
	}
	if b := l.gateway.idle(l.t, l.k); b.Charged != sum || len(book) != len(l.streams) {
		l.t.Errorf("%d charges sum up to %d msat, the balance says %d", len(book), sum, b.Charged)
	}
}

// TestReloadIsAskedFor runs the subcommands, and has changes of the operator's stand
// above the file.
func TestReloadIsAskedFor(t *testing.T) {
	t.Parallel()
	r := &reloading{price: 4, two: true, own: startGateway(t, func(s *setup) { s.Sale = saleOfTwo })}
	r.client = r.gateway
	r.operator(t, http.MethodPost, "/admin/backends", `{"backend":"two","drain":true}`).want(t, http.StatusOK)
	r.operator(t, http.MethodPost, "/admin/prices", `{"model":"demo","multiplier":2}`).want(t, http.StatusOK)
	for _, body := range []string{"", "{}", `{"backend":"two"}`, `{"backend":"three","drain":true}`, `{"backend":"two","drain":true,"within_s":-1}`} {
		r.operator(t, http.MethodPost, "/admin/backends", body).want(t, http.StatusBadRequest)
	}
	r.price = 5
	r.save(t)
	above := []string{"above the file: price of model demo is fixed at 2 times", "above the file: backend two is drained"}
	r.says(t, "diff-config", append(above, "~ services[inference].models[demo].prices.output: 4000000 msat/Mtok → 5000000 msat/Mtok")...)
	r.says(t, "reload", append(above, "generation 2 is in force")...)
	r.says(t, "reload", append(above, "generation 2 stays in force: nothing has changed")...)
	r.says(t, "diff-config", append(above, "nothing would change of generation 2")...)
	labtest.Eventually(t, time.Second, "the fixed price follows the card", func() error {
		if p := r.operator(t, http.MethodGet, "/admin/prices").body; !strings.Contains(string(p), "10000000") {
			return fmt.Errorf("%s", p)
		}
		return nil
	})
	k := r.buy(t, 20_000)
	for range 4 {
		r.post(t, chat(), k.header()).want(t, http.StatusOK)
	}
	if one, two := r.metric(t, `sluice_backend_drained{backend="one"}`), r.metric(t, `sluice_backend_drained{backend="two"}`); one != 0 || two != 1 {
		t.Errorf("drained: one %v, two %v", one, two)
	}
	r.operator(t, http.MethodPost, "/admin/backends", `{"backend":"two","drain":false}`).want(t, http.StatusOK)
	r.operator(t, http.MethodPost, "/admin/prices", `{"model":"demo","multiplier":0}`).want(t, http.StatusOK)
	labtest.Eventually(t, time.Second, "the price is the card's again", func() error { return r.plain(t) })
	if out := r.reload(t); strings.Contains(out, "above the file") {
		t.Errorf("after all was reset: %s", out)
	}

	r.Service, r.Lease = "other", "30s" // one may change, the other may not
	r.save(t)
	for _, name := range []string{"diff-config", "reload"} {
		out, err := r.ask(name)
		if err == nil || !strings.Contains(out, "cannot change ledger.lease") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	if err := os.WriteFile(r.config, []byte("admin: {listen: "+r.Admin+", token: "+r.Token+"}\nservices: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"diff-config", "reload"} {
		if out, err := r.ask(name); err == nil || !strings.Contains(out, "line 2: services") {
			t.Errorf("%s of a bad file: %v\n%s", name, err, out)
		}
	}
	if s := string(r.operator(t, http.MethodGet, "/admin/config").want(t, http.StatusOK).body); !strings.Contains(s, `"ok":false`) || !strings.Contains(s, `"generation":2`) {
		t.Errorf("GET /admin/config says %s", s)
	}
	r.unauthorized().do(t, http.MethodPost, "/admin/reload", "", nil).want(t, http.StatusUnauthorized)
}

// plain wants the price of the file.
func (r *reloading) plain(t *testing.T) error {
	t.Helper()
	if p := r.operator(t, http.MethodGet, "/admin/prices").body; !strings.Contains(string(p), `"output_msat_per_mtok":5000000`) {
		return fmt.Errorf("%s", p)
	}
	return nil
}

// says wants a subcommand to succeed and to print these lines, or what begins them.
func (r *reloading) says(t *testing.T, name string, lines ...string) {
	t.Helper()
	out, err := r.ask(name)
	if err != nil {
		t.Errorf("gateway %s: %v\n%s", name, err, out)
	}
	for _, line := range lines {
		if !strings.Contains("\n"+out, "\n"+line) {
			t.Errorf("gateway %s does not say %q:\n%s", name, line, out)
		}
	}
}

// TestDrainHasADeadline: what is open on a drained backend is cut when the time is
// over, charged for what was delivered, and says so.
func TestDrainHasADeadline(t *testing.T) {
	t.Parallel()
	r := startGateway(t)
	k := r.buy(t, 20_000)
	s := r.stream(t, k, chat("max_tokens", "256"))
	s.read(3)
	r.operator(t, http.MethodPost, "/admin/backends", `{"backend":"one","drain":true,"within_s":0.2}`).want(t, http.StatusOK)
	end := s.rest()
	if end.outcome != "drained" || !strings.Contains(end.raw, `"code":"backend_drained"`) {
		t.Errorf("the stream ends with outcome %q:\n%s", end.outcome, tail(end.raw))
	}
	if c := r.entry(t, k, s.requestID()); c.Outcome != "drained" || c.Usage.Output < 2 || c.Usage.Output > 200 {
		t.Errorf("the books say %+v", c)
	}
	r.post(t, chat(), k.header()).want(t, http.StatusServiceUnavailable)
	r.operator(t, http.MethodPost, "/admin/backends", `{"backend":"one","drain":false}`).want(t, http.StatusOK)
	r.post(t, chat(), k.header()).want(t, http.StatusOK)
}

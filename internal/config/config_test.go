package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/pricing"
)

var update = flag.Bool("update", false, "write what the bad cases say to their .txt files")

func noEnv(string) string { return "" }

func load(t *testing.T, path string, env map[string]string) *Config {
	t.Helper()
	cfg, err := Load(path, func(k string) string { return env[k] })
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// testMacaroon is the macaroon that the good cases also use.
const testMacaroon = "AgEDbG5kAgdleGFtcGxlAAAGIMhEFsLihPVi352mLzDfnjqZ4ov9eWWPYvvQPNRqBscI"

// Each x.bad.yml is refused with exactly the text of x.bad.txt.
func TestBadCases(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.bad.yml")
	if len(files) == 0 {
		t.Fatal("no cases")
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			_, err := Load(file, noEnv)
			if err == nil {
				t.Fatal("accepted")
			}
			dir, _ := filepath.Abs("testdata")
			got := strings.ReplaceAll(err.Error(), dir, "DIR") + "\n"
			expected := strings.TrimSuffix(file, ".yml") + ".txt"
			if *update {
				if err := os.WriteFile(expected, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(expected)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
			if strings.Contains(got, "hunter") || strings.Contains(got, "2222") {
				t.Errorf("a secret shows in:\n%s", got)
			}
		})
	}
}

func TestMinimalHasTheDefaults(t *testing.T) {
	cfg := load(t, "testdata/minimal.good.yml", nil)
	dir, _ := filepath.Abs("testdata")
	if cfg.Store != (Store{Path: filepath.Join(dir, "sluice.db")}) || cfg.Listen != "127.0.0.1:8402" || cfg.TLS.Enabled() {
		t.Errorf("store %+v, listen %s", cfg.Store.Path, cfg.Listen)
	}
	s, b := cfg.Services[0], cfg.Backends[0]
	if s.MinPurchase != 100_000 || s.TokenLifetime != 365*24*time.Hour || s.Models[0].Queue != (Queue{Limit: 64, Timeout: 30 * time.Second}) {
		t.Errorf("service is %+v", s)
	}
	if b.Health.Path != "/health" || b.Timeouts.FirstByte != 5*time.Minute {
		t.Errorf("backend is %+v", b)
	}
	keys := cfg.MasterKeys()
	if len(keys) != 1 || keys[0].State != l402.KeyMint || keys[0].Secret[31] != 0x11 {
		t.Errorf("keys are %v", keys)
	}
	if _, err := l402.NewKeyring(l402.LedgerID{1}, keys); err != nil {
		t.Error(err)
	}
	l := cfg.Limits
	if l.Challenges.PerAddress != (Frequency{50, 200}) || l.Connections != 10_000 || l.PerAddress != 2_500 || cfg.TrustedProxies != nil {
		t.Errorf("limits are %+v", l)
	}
	want, _ := base64.StdEncoding.DecodeString(testMacaroon)
	if string(cfg.Lightning.Macaroon) != string(want) {
		t.Error("the macaroon differs")
	}
}

func TestValuesOfTheAnchorsCase(t *testing.T) {
	cfg := load(t, "testdata/anchors.good.yml", nil)
	want := pricing.Rates{pricing.InputTokens: 150_000, pricing.CachedInputTokens: 1_000, pricing.OutputTokens: 2_000_000, pricing.Calls: 500}
	if got := cfg.Services[0].Models[0].Prices.Rates(); got != want {
		t.Errorf("rates %+v, want %+v", got, want)
	}
	s := cfg.Services[0]
	if s.TokenLifetime != 36*time.Hour || s.MaxPurchase != 1_000_000_000 || s.Hosts[0] != "chat.example" {
		t.Errorf("service is %+v", s)
	}
	if fmt.Sprint(cfg.Services[1].Models[0].Backends) != "[gpu.1 gpu_2]" || cfg.Backends[0].Models["org/model:7b"] != "seven" {
		t.Errorf("models are %+v", cfg.Services[1].Models)
	}
	l := cfg.Limits
	if l.Challenges.PerAddress != (Frequency{0.5, 3}) || l.Challenges.Total != (Frequency{}) || l.PerAddress != 250 ||
		fmt.Sprint(cfg.TrustedProxies) != "[10.0.0.0/8 192.0.2.7/32 fd00::/8]" || cfg.ForwardedHeader != "Forwarded" {
		t.Errorf("limits are %+v, proxies %v", l, cfg.TrustedProxies)
	}
	if cfg.Backends[0].Health.Path != "" || cfg.Limits.Body != 1_000_000 || cfg.Limits.Headers != 32<<10 || cfg.Log.Level != slog.LevelDebug {
		t.Errorf("config is %+v", cfg)
	}
}

// testCert returns a self-signed certificate and its key.
func testCert(t *testing.T) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

func write(t *testing.T, dir, name string, data []byte) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

const example = "../../deploy/gateway.example.yaml"

func TestExampleLoads(t *testing.T) {
	dir := t.TempDir()
	data, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	cert, key := testCert(t)
	macaroon, _ := base64.StdEncoding.DecodeString(testMacaroon)
	write(t, dir, "gateway.yaml", append(data, "\ntls: {cert: tls/cert.pem, key: tls/key.pem}\n"...))
	write(t, dir, "tls/cert.pem", cert)
	write(t, dir, "tls/key.pem", key)
	write(t, dir, "lnd/tls.cert", cert)
	write(t, dir, "lnd/invoice.macaroon", macaroon)
	write(t, dir, "keys/2026-01.hex", []byte(strings.Repeat("ab", 32)+"\n"))
	cfg := load(t, filepath.Join(dir, "gateway.yaml"), nil)
	if cfg.MasterKeys()[0].Secret[0] != 0xab || string(cfg.Lightning.TLSCert) != string(cert) || !cfg.TLS.Enabled() {
		t.Error("files were not read")
	}
}

// A value that the example calls a default is the default.
func TestExampleShowsTheDefaults(t *testing.T) {
	data, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	shown := defaults()
	d := &decoder{lines: map[string]int{}}
	if err := d.document(data, shown); err != nil || len(d.errs) > 0 {
		t.Fatal(err, d.errs)
	}
	want := defaults()
	want.Listen, want.Keys, want.Lightning.GRPC = shown.Listen, shown.Keys, shown.Lightning.GRPC
	want.Lightning.TLSCertFile, want.Lightning.MacaroonFile = shown.Lightning.TLSCertFile, shown.Lightning.MacaroonFile
	s, m, b := Service{}, Model{}, Backend{}
	s.setDefaults()
	m.setDefaults()
	b.setDefaults()
	ss, sm, sb := shown.Services[0], shown.Services[0].Models[0], shown.Backends[0]
	s.Name, s.Models = ss.Name, ss.Models
	m.Name, m.Backends, m.ContextTokens, m.MaxCompletionTokens, m.Prices = sm.Name, sm.Backends, sm.ContextTokens, sm.MaxCompletionTokens, sm.Prices
	b.Name, b.URL, b.Slots, b.Models = sb.Name, sb.URL, sb.Slots, sb.Models
	b.Engine, b.GPUs, b.Exporter, b.Ask = sb.Engine, sb.GPUs, sb.Exporter, sb.Ask
	if !reflect.DeepEqual(sm, m) || !reflect.DeepEqual(ss, s) || !reflect.DeepEqual(sb, b) {
		t.Errorf("entries shown:\n%+v\n%+v\n%+v\nwant:\n%+v\n%+v\n%+v", ss, sm, sb, s, m, b)
	}
	want.Services, want.Backends = shown.Services, shown.Backends
	if !reflect.DeepEqual(shown, want) {
		t.Errorf("shown:\n%+v\nwant:\n%+v", shown, want)
	}
}

// Every key of the schema is in the example, set or commented out, under its parent.
func TestExampleHasEveryKey(t *testing.T) {
	data, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	// A comment line that holds nothing but a key, with or without a value, counts as if it were not a comment.
	comment := regexp.MustCompile(`^( *)# ((?:  )*(?:- )?[a-z0-9_]+:(?: .*)?)$`)
	in := map[string]bool{}
	var parents []string
	var indents []int
	for _, line := range strings.Split(string(data), "\n") {
		if m := comment.FindStringSubmatch(line); m != nil {
			line = m[1] + m[2]
		}
		line = strings.Replace(line, "- ", "  ", 1)
		name, _, ok := strings.Cut(strings.TrimLeft(line, " "), ":")
		if !ok || strings.ContainsAny(name, "# ") {
			continue
		}
		indent := len(line) - len(strings.TrimLeft(line, " "))
		for len(indents) > 0 && indents[len(indents)-1] >= indent {
			parents, indents = parents[:len(parents)-1], indents[:len(indents)-1]
		}
		parents, indents = append(parents, name), append(indents, indent)
		in[strings.Join(parents, ".")] = true
	}
	for _, key := range schema(reflect.TypeFor[Config](), "") {
		if !in[key] {
			t.Errorf("the example does not show %s", key)
		}
	}
}

// schema returns the paths of all keys below t.
func schema(t reflect.Type, prefix string) (keys []string) {
	for t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	for i := range t.NumField() {
		if k := t.Field(i).Tag.Get("yaml"); k != "" && k != "-" {
			keys = append(keys, prefix+k)
			keys = append(keys, schema(t.Field(i).Type, prefix+k+".")...)
		}
	}
	return keys
}

func TestEnvironmentStandsAboveTheFile(t *testing.T) {
	cert, _ := testCert(t)
	block, _ := pem.Decode(cert)
	mac, _ := base64.StdEncoding.DecodeString(testMacaroon)
	env := map[string]string{
		EnvStore:      "postgres://u:hunter2@db/sluice",
		EnvAdminToken: "hunter2hunter2hunter2",
		EnvMasterKey:  strings.Repeat("cd", 32),
		EnvMacaroon:   hex.EncodeToString(mac),
		EnvTLSCert:    base64.StdEncoding.EncodeToString(block.Bytes),

		"SLUICE_BACKEND_GPU_1_API_KEY": "sk-one",
		"SLUICE_BACKEND_GPU_2_API_KEY": "sk-two",
	}
	cfg := load(t, "testdata/anchors.good.yml", env)
	keys := cfg.MasterKeys()
	if len(keys) != 4 || keys[0].Secret[0] != 0xcd || keys[0].State != l402.KeyMint || keys[1].ID != "new" {
		t.Errorf("keys are %v", keys)
	}
	if string(cfg.Store.URL) != env[EnvStore] || cfg.Store.Path != "" || string(cfg.Admin.Token) != env[EnvAdminToken] {
		t.Error("store or token is not the environment's")
	}
	if string(cfg.Lightning.Macaroon) != string(mac) || string(cfg.Lightning.TLSCert) != string(cert) {
		t.Error("lnd's credentials are not the environment's")
	}
	if string(cfg.Backends[0].APIKey) != "sk-one" || string(cfg.Backends[1].APIKey) != "sk-two" {
		t.Error("backends' keys are not the environment's")
	}
	env[EnvTLSCert] = string(cert)
	if got := load(t, "testdata/anchors.good.yml", env).Lightning.TLSCert; string(got) != string(cert) {
		t.Error("a certificate in PEM form is not taken")
	}
}

func TestBadEnvironment(t *testing.T) {
	for name, want := range map[string]string{
		EnvStore: "SLUICE_STORE: want sqlite:PATH", EnvAdminToken: "admin.token: has fewer than",
		EnvMasterKey: "SLUICE_MASTER_KEY: is not 64 hex digits", EnvMacaroon: "SLUICE_LND_MACAROON: is not a macaroon",
		EnvTLSCert: "SLUICE_LND_TLS_CERT: holds no certificate", "SLUICE_BACKEND_B_API_KEY": "cannot stand in a header",
	} {
		_, err := Load("testdata/minimal.good.yml", func(k string) string {
			if k == name {
				return "hunter\n2"
			}
			return ""
		})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter") {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}

func TestEnvironmentOfTwoBackends(t *testing.T) {
	data, err := os.ReadFile("testdata/anchors.good.yml")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(data), "gpu.1", "gpu-2") // the environment variable has gpu_2 for this name
	_, err = Parse([]byte(text), t.TempDir(), func(k string) string {
		return map[string]string{"SLUICE_BACKEND_GPU_2_API_KEY": "sk"}[k]
	})
	if err == nil || !strings.Contains(err.Error(), "variable of another backend") {
		t.Errorf("error is %v", err)
	}
}

func TestErrorsAreTyped(t *testing.T) {
	_, err := Parse([]byte("log:\n  levle: x\n"), ".", noEnv)
	var e *Error
	if !errors.As(err, &e) || e.Line != 2 || e.Key != "log.levle" || e.Reason != `unknown key; did you mean "level"?` {
		t.Errorf("error is %+v", e)
	}
}

func TestNestedAliasesEnd(t *testing.T) {
	var b strings.Builder
	b.WriteString("services:\n  - &s\n    models: &m\n")
	b.WriteString(strings.Repeat("      - {name: a}\n", 1000))
	b.WriteString(strings.Repeat("  - {models: *m}\n", 1000))
	_, err := Parse([]byte(b.String()), ".", noEnv)
	if err == nil || !strings.Contains(err.Error(), "more than 100000 values") {
		t.Errorf("error is %.200v", err)
	}
}

func TestSecretsPrintNothing(t *testing.T) {
	cfg := load(t, "testdata/minimal.good.yml", map[string]string{EnvStore: "postgres://u:hunter2@db/x", EnvAdminToken: "hunter2hunter2hunter2"})
	var out strings.Builder
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "token", cfg.Admin.Token, "key", cfg.MasterKeys()[0], "store", cfg.Store)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		fmt.Fprintf(&out, verb, *cfg)
	}
	y, err := yaml.Marshal(cfg.Store)
	if err != nil {
		t.Fatal(err)
	}
	j, err := json.Marshal(cfg.Admin)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(append(y, j...))
	for _, secret := range []string{"hunter2", "68756e746572", "1111111111111111", "17, 17, 17", testMacaroon[20:]} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("%q shows in %s", secret, out.String())
		}
	}
}

// The price of a model that ranks may include searches and documents. Its owner says how many documents
// one request may hold.
func TestModelThatRanks(t *testing.T) {
	minimal, err := os.ReadFile("testdata/minimal.good.yml")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(minimal), "prices: {input: 1 sat/Mtok}", "apis: [rerank]\n        max_items: 500\n        prices: {input: 1 sat/Mtok, search: 100 msat/search, document: 2 msat/document}", 1)
	cfg, err := Parse([]byte(text), ".", noEnv)
	if err != nil {
		t.Fatal(err)
	}
	m := cfg.Services[0].Models[0]
	if r := m.Prices.Rates(); m.MaxItems != 500 || r[pricing.Searches] != 100 || r[pricing.Documents] != 2 {
		t.Errorf("%d, %v", m.MaxItems, r)
	}
	if _, err := Parse([]byte(strings.Replace(text, "max_items: 500", "max_items: -1", 1)), ".", noEnv); err == nil || !strings.Contains(err.Error(), "max_items") {
		t.Error(err)
	}
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"gopkg.in/macaroon.v2"

	"sluice.example/sluice/l402/bolt11"
	"sluice.example/sluice/l402/client"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"agent-client": main})
}

type worldKey struct{}

// TestScripts runs testdata/script/*.txtar. Each script has its own seller and lnd.
//
//	exits CODE ARGS…  runs agent-client and checks its exit code
//	invoice NAME AMOUNT_MSAT [expired|mainnet]   sets $NAME to a fresh invoice
//	attempts N        checks how many payments the wallet was ordered to make
//	json PATH WANT    checks a member of the JSON object on standard output
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:   "testdata/script",
		Setup: setup,
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits": cmdExits, "invoice": cmdInvoice, "attempts": cmdAttempts, "json": cmdJSON,
		},
	})
}

func setup(env *testscript.Env) error {
	w, vars, err := prepare(env.WorkDir, env.Defer)
	if err != nil {
		return err
	}
	env.Values[worldKey{}] = w
	for name, value := range vars {
		env.Setenv(name, value)
	}
	return nil
}

// prepare starts a world, writes its configuration to dir, and returns the environment for the
// program.
func prepare(dir string, onEnd func(func())) (*world, map[string]string, error) {
	w, err := newWorld()
	if err != nil {
		return nil, nil, err
	}
	mac, err := macaroon.New([]byte("root"), []byte("id"), "lnd", macaroon.V2)
	if err != nil {
		return nil, nil, err
	}
	macBytes, err := mac.MarshalBinary()
	if err != nil {
		return nil, nil, err
	}
	addr, cert, stop, err := serveLND(w, macBytes)
	if err != nil {
		return nil, nil, err
	}
	onEnd(stop)
	gateway := httptest.NewServer(w)
	onEnd(gateway.Close)
	config := fmt.Sprintf(`network: regtest
gateway_url: %s
tokens_dir: store
lnd:
  grpc: %s
  tls_cert: tls.cert
  macaroon: admin.macaroon
caps:
  per_request: 100 sat
  fee_base: 1000 msat
  fee_ppm: 5000
payment_timeout: 1s
`, gateway.URL, addr)
	for name, data := range map[string][]byte{"agent.yaml": []byte(config), "tls.cert": cert, "admin.macaroon": macBytes} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return nil, nil, err
		}
	}
	return w, map[string]string{"GRPC": addr, "URL": gateway.URL, "HOME": dir, "AGENT_CLIENT_CONFIG": filepath.Join(dir, "agent.yaml")}, nil
}

func cmdExits(ts *testscript.TestScript, _ bool, args []string) {
	code := 0
	err := ts.Exec("agent-client", args[1:]...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

func cmdInvoice(ts *testscript.TestScript, _ bool, args []string) {
	w := ts.Value(worldKey{}).(*world)
	n, err := amount("amount", args[1])
	ts.Check(err)
	network, at := bolt11.Regtest, time.Now()
	switch strings.Join(args[2:], " ") {
	case "expired":
		at = at.Add(-2 * time.Hour)
	case "mainnet":
		network = bolt11.Mainnet
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	s, _ := w.invoice(network, n, at)
	ts.Setenv(args[0], s)
}

func cmdAttempts(ts *testscript.TestScript, _ bool, args []string) {
	w := ts.Value(worldKey{}).(*world)
	w.mu.Lock()
	defer w.mu.Unlock()
	if got := fmt.Sprint(w.attempts); got != args[0] {
		ts.Fatalf("the wallet was ordered to pay %s times, want %s", got, args[0])
	}
}

func cmdJSON(ts *testscript.TestScript, neg bool, args []string) {
	dec := json.NewDecoder(strings.NewReader(ts.ReadFile("stdout")))
	dec.UseNumber()
	var v any
	ts.Check(dec.Decode(&v))
	if dec.More() {
		ts.Fatalf("more than one JSON value on standard output")
	}
	for _, name := range strings.Split(args[0], ".") {
		switch node := v.(type) {
		case map[string]any:
			v = node[name]
		case []any:
			var i int
			if _, err := fmt.Sscan(name, &i); err != nil || i >= len(node) {
				ts.Fatalf("no element %s in %v", name, node)
			}
			v = node[i]
		}
	}
	if got := fmt.Sprint(v); (got == args[1]) == neg {
		ts.Fatalf("%s is %q, want %q", args[0], got, args[1])
	}
}

// invoke runs the program in this process.
func invoke(t *testing.T, env map[string]string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, strings.NewReader(""), &out, &errs, func(k string) string { return env[k] })
	return code, out.String(), errs.String()
}

func TestWalletPayPrintsExactly(t *testing.T) {
	w, env := startWorld(t)
	w.mu.Lock()
	invoice, hash := w.invoice(bolt11.Regtest, 5000, time.Now())
	preimage := w.preimages[hash]
	w.mu.Unlock()
	want := fmt.Sprintf(`{"preimage":"%s","payment_hash":"%s","amount_msat":5000,"fee_msat":21}`+"\n", preimage.Hex(), hash)
	for range 2 { // the second call only looks at the first payment
		code, out, errs := invoke(t, env, "wallet", "pay", "--json", invoice)
		if code != 0 || out != want || errs != "" {
			t.Errorf("exit %d\n%s%s, want %s", code, out, errs, want)
		}
	}
	if w.attempts != 1 {
		t.Errorf("%d payments", w.attempts)
	}
}

func TestInterruptedPaymentStaysOnRecord(t *testing.T) {
	w, env := startWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan int)
	var out, errs bytes.Buffer
	go func() {
		done <- run(ctx, []string{"request", "--json", "--deposit-msat", "77000", env["URL"] + "/call"}, nil, &out, &errs, func(k string) string { return env[k] })
	}()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		w.mu.Lock()
		ordered := w.attempts
		w.mu.Unlock()
		if ordered == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no payment was ordered")
		}
	}
	cancel()
	if code := <-done; code != exitPayment || !strings.Contains(out.String(), `"payment_in_flight"`) {
		t.Errorf("exit %d\n%s%s", code, out.String(), errs.String())
	}
	store, err := client.OpenDir(filepath.Join(filepath.Dir(env["AGENT_CLIENT_CONFIG"]), "store"))
	if err != nil {
		t.Fatal(err)
	}
	if left, err := store.Intents(); err != nil || len(left) != 1 {
		t.Errorf("intents %v, %v", left, err)
	}
}

// startWorld does what setup does, for tests that run in this process.
func startWorld(t *testing.T) (*world, map[string]string) {
	t.Helper()
	w, env, err := prepare(t.TempDir(), t.Cleanup)
	if err != nil {
		t.Fatal(err)
	}
	return w, env
}

// The example configuration documents every key, and its defaults are the real defaults.
func TestExampleConfig(t *testing.T) {
	data, err := os.ReadFile("config.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"HOME": "/home/a"}
	a := &app{env: func(k string) string { return env[k] }}
	want, err := a.config()
	if err != nil {
		t.Fatal(err)
	}
	want.GatewayURL, want.Caps.PerRequest, want.Caps.Total = "https://gateway.example", 500_000, 50_000_000
	got := &config{}
	if err := got.read(data, "/etc", "/home/a"); err != nil || *got != *want {
		t.Errorf("%+v\n%+v, %v", got, want, err)
	}
	for key := range got.keys("", "") {
		name := key[strings.LastIndexByte(key, '.')+1:]
		if !strings.Contains(string(data), name+": ") {
			t.Errorf("the example does not document %s", key)
		}
	}
}

func FuzzConfig(f *testing.F) {
	example, err := os.ReadFile("config.example.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(example)
	f.Add([]byte("caps: {per_request: 99999999999999999999 sat}"))
	f.Add([]byte("lnd: &a {grpc: x}\ncaps: *a"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c := &config{}
		if err := c.read(data, "/etc", "/home/a"); err != nil {
			return
		}
		if !c.Caps.PerRequest.Valid() || !c.Caps.Total.Valid() || c.Caps.FeePPM < 0 || c.Caps.FeePPM > 1_000_000 {
			t.Fatalf("out of range: %+v", c)
		}
	})
}

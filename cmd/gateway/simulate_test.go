package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice.example/sluice/pricing/simulate"
)

// simulateWith runs the subcommand.
func simulateWith(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(context.Background(), env{stdout: &out, stderr: &errs}, append([]string{"simulate"}, args...))
	return code, out.String(), errs.String()
}

func TestSimulateComparesPolicies(t *testing.T) {
	dir := t.TempDir()
	mine := filepath.Join(dir, "mine.yaml")
	if err := os.WriteFile(mine, []byte("gain: 2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	plot := filepath.Join(dir, "surge.svg")
	code, out, errs := simulateWith("--scenario", "surge", "--policy", "default, static,"+mine, "--seed", "4", "--json", "--plot", plot)
	var results []simulate.Result
	if err := json.Unmarshal([]byte(out), &results); code != exitOK || err != nil {
		t.Fatalf("exit %d, %v\n%s%s", code, err, out, errs)
	}
	if len(results) != 3 || results[0].Policy != "default" || results[1].Policy != "static" || results[2].Policy != "mine" {
		t.Errorf("%+v", results)
	}
	if r := results[0]; r.WaitP99 >= 5 || r.LoadMean < 0.7 || r.LoadMean > 0.9 || results[1].Refused == 0 {
		t.Errorf("%+v", results)
	}
	if !strings.Contains(errs, "policy mine: the price may oscillate") {
		t.Errorf("no warning: %q", errs)
	}
	svg, err := os.ReadFile(plot)
	if err != nil || !bytes.HasPrefix(svg, []byte("<svg ")) || bytes.Count(svg, []byte("<polyline ")) != 9 {
		t.Errorf("plot of %d bytes, %v", len(svg), err)
	}
}

func TestSimulateReplaysARecording(t *testing.T) {
	for _, name := range []string{"trace.csv", "range.json", "epochs.json"} {
		code, out, errs := simulateWith("--scenario", filepath.Join("../../pricing/simulate/testdata", name), "--policy", "default,curve")
		if code != exitOK || !strings.Contains(out, "trace "+name) || strings.Count(out, "\n") != 6 {
			t.Errorf("%s: exit %d\n%s%s", name, code, out, errs)
		}
	}
	code, out, _ := simulateWith("--scenario", "../../pricing/simulate/testdata/trace.csv", "--csv")
	if code != exitOK || !strings.HasPrefix(out, "policy,time_s,multiplier,") || strings.Count(out, "\n") != 13 {
		t.Errorf("exit %d\n%s", code, out)
	}
	if _, out, _ := simulateWith("--scenario", "../../pricing/simulate/testdata/trace.csv"); !strings.Contains(out, "8 slots") {
		t.Errorf("the recorded capacity was not taken:\n%s", out)
	}
	if _, out, _ := simulateWith("--scenario", "../../pricing/simulate/testdata/trace.csv", "--slots", "16"); !strings.Contains(out, "16 slots") {
		t.Errorf("--slots was not taken:\n%s", out)
	}
}

func TestSimulateSaysWhatIsWrong(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte("ceiling: 0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{nil, exitUsage, "--scenario is required"},
		{[]string{"--scenario", "surge", "--json", "--csv"}, exitUsage, "choose one"},
		{[]string{"--scenario", "surge", "--seed", "x"}, exitUsage, "seed"},
		{[]string{"--scenario", "surge", "--policy", "targte"}, exitFailed, "the policies are default, target"},
		{[]string{"--scenario", "surge", "--policy", bad}, exitFailed, "ceiling: want"},
		{[]string{"--scenario", "surge", "--slots", "0"}, exitFailed, "slots: want 1"},
		{[]string{"--scenario", "no-such-file.csv"}, exitFailed, "no scenario and no file"},
		{[]string{"--scenario", bad}, exitFailed, "time_s"},
		{[]string{"--scenario", "surge", "--plot", t.TempDir()}, exitFailed, "draw the plot"},
	} {
		if code, _, errs := simulateWith(c.args...); code != c.code || !strings.Contains(errs, c.want) {
			t.Errorf("%q: exit %d, %q; want %d, %q", c.args, code, errs, c.code, c.want)
		}
	}
}

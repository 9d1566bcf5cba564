package simulate_test

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/pricing"
	"sluice.example/sluice/pricing/simulate"
)

func read(t *testing.T, name string) simulate.Trace {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	trace, err := simulate.ReadTrace(name, f)
	if err != nil {
		t.Fatal(err)
	}
	return trace
}

// rows returns a trace as text, so that NaN values compare as equal.
func rows(trace simulate.Trace) string {
	var b strings.Builder
	for _, r := range trace.Rows {
		fmt.Fprintln(&b, r.At, r.Running, r.Waiting, r.Capacity, r.Utilization, r.Multiplier, r.Signal)
	}
	return b.String()
}

func TestReadCSV(t *testing.T) {
	trace := read(t, "trace.csv")
	if len(trace.Rows) != 13 || trace.Slots() != 8 {
		t.Fatalf("%d rows, %d slots", len(trace.Rows), trace.Slots())
	}
	if got, want := fmt.Sprint(trace.Rows[7]), fmt.Sprint(simulate.Row{At: 35, Running: 8, Waiting: 5, Capacity: 8, Utilization: 1, Multiplier: math.NaN(), Signal: math.NaN()}); got != want {
		t.Errorf("the value that was not known is %s, want the one before: %s", got, want)
	}
}

func TestReadPrometheus(t *testing.T) {
	want := "0 6 0 NaN 0.8 1 NaN\n15 14 0 NaN 1 1.2 NaN\n30 15 5 NaN 1 1.5 NaN\n"
	if got := rows(read(t, "range.json")); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestReadEpochs(t *testing.T) {
	want := "0 NaN NaN NaN NaN 1 0.4\n5 NaN NaN NaN NaN 1.2 1.1\n10 NaN NaN NaN NaN 1.75 2.6\n40 NaN NaN NaN NaN 1.7 0.7\n"
	if got := rows(read(t, "epochs.json")); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// Older versions stored some prices without a time. Such prices are left out, and the others are read.
func TestReadEpochsWithoutATime(t *testing.T) {
	trace, err := simulate.ReadTrace("x", strings.NewReader(`[{"id":1,"model":"m","multiplier":1,"published_at":"2026-01-01T00:00:00Z"},
		{"id":2,"model":"m","multiplier":3,"published_at":"0001-01-01T00:00:00Z"},{"id":3,"model":"m","multiplier":2,"published_at":"2026-01-01T00:00:05Z"}]`))
	if err != nil || len(trace.Rows) != 2 || trace.Rows[1].At != 5 || trace.Rows[1].Multiplier != 2 {
		t.Errorf("%+v, %v", trace.Rows, err)
	}
}

func TestReadTraceNamesWhatIsWrong(t *testing.T) {
	epoch := `{"model":"m","multiplier":1,"published_at":"2026-01-01T00:00:00Z"}`
	for text, want := range map[string]string{
		"":                                 "empty",
		" \n":                              "empty",
		"# nothing\n":                      "no header",
		"running,waiting\n1,2\n":           "time_s",
		"time_s,power\n1,2\n":              "none of the columns",
		"time_s,running\n1,2\n":            "at least 2",
		"time_s,running\n1,2\n1,2\n":       "not after",
		"time_s,running\n1,2\n3,-2\n":      "line 3: running is -2",
		"time_s,running\n1,2\n3,x\n":       "line 3: running is \"x\"",
		"time_s,utilization\n1,1\n2,95\n":  "line 3: utilization is 95, want 0 to 1",
		"time_s,running\n1,2\nnan,3\n":     "line 3: time_s",
		"time_s,running\n1,2\n2\n":         "wrong number of fields",
		"time_s,running\n0,2\n9e9,3\n":     "31 days",
		`{"status":"error","error":"bad"}`: "the query failed: bad",
		`{"status":"success","data":{"resultType":"vector","result":[]}}`:                                                   "range query",
		`{"data":{"resultType":"matrix","result":[]}}`:                                                                      "none of the series is known",
		`{"data":{"resultType":"matrix","result":[{"metric":{"__name__":"tgi_queue_size"},"values":[[1,"1"],["x","2"]]}]}}`: "want seconds",
		`{"data":{"resultType":"matrix","result":[{"metric":{"__name__":"tgi_queue_size"},"values":[[1,"1"],[2,3]]}]}}`:     "want a number",
		`{"data":{"resultType":"matrix","result":[{"metric":{"__name__":"tgi_queue_size"},"values":[[1,"1"],[2,"-3"]]}]}}`:  "waiting is -3",
		`[` + epoch + `]`: "at least 2",
		`[` + epoch + `,` + strings.Replace(epoch, `"m"`, `"n"`, 1) + `]`: `"m" and of "n"`,
		`[1]`: "cannot unmarshal",
		`{`:   "unexpected end",
	} {
		if _, err := simulate.ReadTrace("x", strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// A recording of the surge under the default policy gives back the demand that caused it, without the
// effect of the price.
func TestDemandIsRecoveredFromARecording(t *testing.T) {
	s := surge(nil)
	result := run(t, s, named(t, "default"), 3)
	var csv strings.Builder
	csv.WriteString("time_s,running,waiting,multiplier\n")
	var epochs []pricing.Epoch
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i, sample := range result.Series {
		fmt.Fprintf(&csv, "%g,%g,%d,%g\n", sample.At, sample.Load*32, sample.Waiting, sample.Multiplier)
		epochs = append(epochs, pricing.Epoch{ID: int64(i), Model: "m", Multiplier: sample.Multiplier, Signal: sample.Signal, At: start.Add(time.Duration(sample.At * float64(time.Second)))})
	}
	stored, err := json.Marshal(epochs)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"csv": csv.String(), "epochs": string(stored)} {
		trace, err := simulate.ReadTrace(name, strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		got, err := trace.Scenario(s.Pool)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range []struct{ from, to, want float64 }{{100, 500, s.Demand[0].Rate}, {700, 4000, s.Demand[1].Rate}, {4300, 5300, s.Demand[2].Rate}} {
			if mean := meanRate(got, part.from, part.to); math.Abs(mean/part.want-1) > 0.15 {
				t.Errorf("%s: demand from %g to %g s is %.3g/s, was %.3g/s", name, part.from, part.to, mean, part.want)
			}
		}
		// A signal says less about the demand than counted requests do.
		if r := run(t, got, named(t, "default"), 1); name == "csv" && r.WaitP99 > 6 || r.LoadMean < 0.55 {
			t.Errorf("%s replayed: %+v", name, summary(r))
		}
	}
}

func meanRate(s simulate.Scenario, from, to float64) float64 {
	sum, n := 0.0, 0.0
	for _, d := range s.Demand { // rows are evenly spaced
		if d.At >= from && d.At < to {
			sum, n = sum+d.Rate, n+1
		}
	}
	return sum / n
}

// Utilization that this gateway's requests do not explain moves the price as well.
func TestWorkOfOthersRaisesThePrice(t *testing.T) {
	trace, err := simulate.ReadTrace("busy", strings.NewReader("time_s,utilization,running,waiting\n0,0,0,0\n60,1,0,0\n300,0,0,0\n600,0,0,0\n"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := trace.Scenario(simulate.DefaultPool())
	if err != nil {
		t.Fatal(err)
	}
	r := run(t, s, named(t, "default"), 1)
	at := func(seconds float64) float64 { return r.Series[int(seconds/5)-1].Multiplier }
	if at(55) != 1 || at(250) < 2 || at(595) > at(295)/2 {
		t.Errorf("price %g before, %g during, %g after", at(55), at(250), at(595))
	}
}

func FuzzReadTrace(f *testing.F) {
	for _, name := range []string{"trace.csv", "range.json", "epochs.json"} {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("\xef\xbb\xbftime_s,utilization\n0,.5\n1e3,\"1\"\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		trace, err := simulate.ReadTrace("fuzz", strings.NewReader(string(data)))
		if err != nil {
			return
		}
		for i, r := range trace.Rows {
			if i == 0 && r.At != 0 || i > 0 && !(r.At > trace.Rows[i-1].At) {
				t.Fatalf("row %d is at %g", i, r.At)
			}
			for _, v := range []float64{r.Running, r.Waiting, r.Capacity, r.Utilization, r.Multiplier, r.Signal} {
				if v < 0 || math.IsInf(v, 0) {
					t.Fatalf("row %d: %+v", i, r)
				}
			}
		}
		s, err := trace.Scenario(simulate.DefaultPool())
		if err != nil {
			return // the model cannot play this
		}
		for i, d := range s.Demand {
			if !(d.Rate >= 0) || !(d.Others >= 0 && d.Others <= 1) || i > 0 && !(d.At > s.Demand[i-1].At) {
				t.Fatalf("segment %d: %+v", i, d)
			}
		}
	})
}

func FuzzParsePolicy(f *testing.F) {
	f.Add("policy: curve\ninterval: 2s\ncurve: [{pressure: 0.2, multiplier: 1}, {pressure: 0.9, multiplier: 3}]\nparts: {gpu: 0}\n")
	f.Add("gain: .inf\nhalf_life: 10m")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := simulate.ParsePolicy("fuzz", strings.NewReader(text))
		if err != nil {
			return
		}
		if _, err := p.Params.Validate(); err != nil {
			t.Fatalf("what was taken is not valid: %v", err)
		}
		c := pricing.NewController(p.Params, pricing.State{})
		d := c.Step(pricing.Observation{At: time.Unix(1e9, 0), Pressure: 1, OK: true, Hook: 2})
		if !(d.Multiplier >= p.Params.Floor && d.Multiplier <= p.Params.Ceiling) && p.Params.Policy != pricing.PolicyStatic {
			t.Fatalf("%+v", d)
		}
	})
}

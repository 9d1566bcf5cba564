package gateway_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestMetricsAreTypedAndSpeakOpenMetrics: a metric that only grows is a counter, and a client that
// asks for OpenMetrics gets OpenMetrics.
func TestMetricsAreTypedAndSpeakOpenMetrics(t *testing.T) {
	r := gpuRig(t, 10*time.Second, 200)
	page := r.metrics()
	for _, name := range []string{"sluice_gpu_busy_seconds_total", "sluice_gpu_shared_seconds_total", "sluice_gpu_time_fallback_seconds_total", "sluice_gpu_time_fallbacks_total"} {
		if !strings.Contains(page, "# TYPE "+name+" counter\n") {
			t.Errorf("%s is no counter", name)
		}
	}
	for line := range strings.SplitSeq(page, "\n") {
		if name, ok := strings.CutPrefix(line, "# TYPE "); ok && strings.Contains(name, "_total ") && !strings.HasSuffix(name, " counter") {
			t.Errorf("%s: a name in _total is a counter's", line)
		}
	}
	req, err := http.NewRequest(http.MethodGet, r.admin+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if kind := resp.Header.Get("Content-Type"); !strings.HasPrefix(kind, "application/openmetrics-text") || !strings.HasSuffix(strings.TrimSpace(string(text)), "# EOF") {
		t.Errorf("content type %q, the page ends in %q", kind, text[max(0, len(text)-40):])
	}
	if !strings.Contains(string(text), "# TYPE sluice_gpu_busy_seconds counter\n") {
		t.Error("OpenMetrics does not know the counter")
	}
}

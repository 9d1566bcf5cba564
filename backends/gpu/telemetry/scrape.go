package telemetry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// maxPage bounds a page of metrics, in bytes: an engine's histograms make
// hundreds of KiB.
const maxPage = 16 << 20

// scraper GETs a page of Prometheus text and parses the lines it wants.
type scraper struct {
	url    string
	client *http.Client
	wanted map[string]bool // metric names
}

func newScraper(u *url.URL, client *http.Client, wanted map[string]bool) scraper {
	page := *u
	if strings.Trim(page.Path, "/") == "" {
		page.Path = "/metrics"
	}
	if client == nil {
		client = &http.Client{}
	}
	return scraper{page.String(), client, wanted}
}

// sample is one series of a metric.
type sample struct {
	labels labels
	value  float64
}

type labels []*dto.LabelPair

// get returns a label's value, empty where there is no such label.
func (l labels) get(name string) string {
	for _, pair := range l {
		if pair.GetName() == name {
			return pair.GetValue()
		}
	}
	return ""
}

func (l labels) all() map[string]string {
	m := make(map[string]string, len(l))
	for _, pair := range l {
		m[pair.GetName()] = pair.GetValue()
	}
	return m
}

func (s *scraper) scrape(ctx context.Context) (map[string][]sample, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "text/plain; version=0.0.4")
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, withoutURL(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the metrics page answered %d", resp.StatusCode)
	}
	page, err := io.ReadAll(io.LimitReader(resp.Body, maxPage+1))
	if err != nil {
		return nil, fmt.Errorf("read the metrics page: %w", err)
	}
	return parsePage(page, s.wanted)
}

// withoutURL is the error of a request without its URL, whose query may hold a
// key.
func withoutURL(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// parsePage reads the wanted metrics of a page. The others are not looked at:
// an engine's page is mostly histograms, and a fault in one of those is no
// reason to know nothing. A page that does not end with a line's end was cut
// off, and the value there with it.
func parsePage(page []byte, wanted map[string]bool) (map[string][]sample, error) {
	if len(page) > maxPage {
		return nil, fmt.Errorf("the metrics page is larger than %d bytes", maxPage)
	}
	if len(page) > 0 && page[len(page)-1] != '\n' {
		return nil, errors.New("the metrics page is cut off")
	}
	var kept bytes.Buffer
	for line := range bytes.Lines(page) {
		line = bytes.TrimLeft(line, " \t")
		if wanted[string(metricName(line))] {
			kept.Write(bytes.TrimRight(line, " \t\r\n"))
			kept.WriteByte('\n')
		}
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(&kept)
	if err != nil {
		return nil, fmt.Errorf("parse the metrics page: %w", err)
	}
	found := make(map[string][]sample, len(families))
	for name, family := range families {
		for _, m := range family.GetMetric() {
			found[name] = append(found[name], sample{m.GetLabel(), m.GetUntyped().GetValue()})
		}
	}
	return found, nil
}

// metricName is what a line begins with, up to its labels or value.
func metricName(line []byte) []byte {
	if i := bytes.IndexAny(line, "{ \t\r\n"); i >= 0 {
		return line[:i]
	}
	return line
}

package telemetry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// maxPage bounds a page of metrics, in bytes. An engine's histograms alone take hundreds of KiB.
const maxPage = 16 << 20

// scraper GETs a page of Prometheus text and parses the lines of the metrics that it wants.
type scraper struct {
	url    string
	client *http.Client
	wanted map[string]bool // by metric name
}

func newScraper(u *url.URL, client *http.Client, wanted map[string]bool) scraper {
	at := *u
	if strings.Trim(at.Path, "/") == "" {
		at.Path = "/metrics"
	}
	if client == nil {
		client = &http.Client{}
	}
	return scraper{at.String(), client, wanted}
}

// sample is one series of a metric.
type sample struct {
	labels labels
	value  float64
}

type labels []*dto.LabelPair

// get returns a label's value, or "" if there is no such label.
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

func (s *scraper) scrape(ctx context.Context) (*scraped, error) {
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
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxPage+1))
	if err != nil {
		return nil, fmt.Errorf("read the metrics page: %w", err)
	}
	return parsePage(text, s.wanted)
}

// withoutURL returns the error of a request without its URL, because the query of the URL may hold a
// key.
func withoutURL(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// scraped is what was found on a metrics page.
type scraped struct {
	series map[string][]sample // by the metric's name, as the scraper wants it
	broken map[string]int      // number of wanted lines whose value cannot be read, by metric name
	others []string            // names of a few metrics that the scraper does not want
}

// fewOthers bounds scraped.others.
const fewOthers = 5

// without returns an error about metrics that the page lacks. The error names some metrics that the
// page has.
func (p *scraped) without(err error) error {
	switch {
	case len(p.broken) > 0:
		return fmt.Errorf("no value of %s can be read", strings.Join(slices.Sorted(maps.Keys(p.broken)), ", "))
	case len(p.others) > 0:
		return fmt.Errorf("%w (the page has %s)", err, strings.Join(p.others, ", "))
	}
	return fmt.Errorf("%w (the page has no metric at all)", err)
}

// parsePage reads the wanted metrics of a page of Prometheus text or OpenMetrics. It does not parse
// other lines, because most lines of an engine's page are histograms, and a fault in a histogram must
// not hide the wanted metrics. A wanted line that cannot be read costs only its own value. A page must
// end with a line end or with OpenMetrics' # EOF. Otherwise the page was cut off, perhaps inside a
// value, and parsePage returns an error.
func parsePage(text []byte, wanted map[string]bool) (*scraped, error) {
	if len(text) > maxPage {
		return nil, fmt.Errorf("the metrics page is larger than %d bytes", maxPage)
	}
	p := &scraped{series: map[string][]sample{}, broken: map[string]int{}}
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		name := string(metricName(line))
		counter := strings.TrimSuffix(name, "_total") // OpenMetrics adds _total to the name of every counter
		switch {
		case len(line) == 0 || line[0] == '#':
		case wanted[name]:
			p.add(name, name, line)
		case wanted[counter]:
			p.add(counter, name, line)
		case len(p.others) < fewOthers && !slices.Contains(p.others, name):
			p.others = append(p.others, strings.ToValidUTF8(name[:min(len(name), 80)], "?"))
		}
	}
	if p.isMetrics(text) && text[len(text)-1] != '\n' && string(lastLine(text)) != "# EOF" {
		return nil, errors.New("the metrics page is cut off")
	}
	return p, nil
}

// isMetrics reports whether a page has metrics at all, rather than being one for people.
func (p *scraped) isMetrics(text []byte) bool {
	return len(p.series)+len(p.broken) > 0 || bytes.HasPrefix(text, []byte("# ")) || bytes.Contains(text, []byte("\n# "))
}

func lastLine(text []byte) []byte { return text[bytes.LastIndexByte(text, '\n')+1:] }

// add reads one line.
func (p *scraped) add(as, name string, line []byte) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(append(plainLine(line), '\n')))
	if err != nil || families[name] == nil || len(families[name].GetMetric()) != 1 {
		p.broken[as]++
		return
	}
	m := families[name].GetMetric()[0]
	p.series[as] = append(p.series[as], sample{m.GetLabel(), m.GetUntyped().GetValue()})
}

// plainLine returns a line without what may follow its value: a timestamp, which OpenMetrics writes in
// another form, and an exemplar.
func plainLine(line []byte) []byte {
	end := labelsEnd(line)
	fields := bytes.Fields(line[end:])
	if len(fields) == 0 {
		return bytes.Clone(line)
	}
	if len(fields) > 1 && !isNumber(fields[1]) && fields[1][0] != '#' {
		return bytes.Clone(line) // there is more than one word in place of the value
	}
	return append(append(bytes.Clone(line[:end]), ' '), fields[0]...)
}

func isNumber(text []byte) bool {
	_, err := strconv.ParseFloat(string(text), 64)
	return err == nil
}

// labelsEnd returns the index in a line at which its name and labels end. A quoted label may hold a
// brace.
func labelsEnd(line []byte) int {
	name := len(metricName(line))
	start := name
	for start < len(line) && (line[start] == ' ' || line[start] == '\t') {
		start++
	}
	if start == len(line) || line[start] != '{' {
		return name
	}
	quoted := false
	for i := start; i < len(line); i++ {
		switch line[i] {
		case '\\':
			i++
		case '"':
			quoted = !quoted
		case '}':
			if !quoted {
				return i + 1
			}
		}
	}
	return len(line)
}

// metricName returns the beginning of a line, up to its labels or value.
func metricName(line []byte) []byte {
	if i := bytes.IndexAny(line, "{ \t\r\n"); i >= 0 {
		return line[:i]
	}
	return line
}

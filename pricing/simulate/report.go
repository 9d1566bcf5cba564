package simulate

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
)

// WriteJSON writes the results as an array.
func WriteJSON(w io.Writer, results []Result) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(results)
}

// WriteTable writes the results as a table for people.
func WriteTable(w io.Writer, s Scenario, results []Result) error {
	fmt.Fprintf(w, "%s\nmeasured from %s to %s\n\n", s.Name, clock(s.From), clock(s.To))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "policy\tload\twait p50\twait p99\tprice\tsd ln price\trefused\trevenue\t")
	for _, r := range results {
		fmt.Fprintf(t, "%s\t%.2f\t%.1f s\t%.1f s\t%.2f\t%.2f\t%d\t%.0f sat\t\n",
			r.Policy, r.LoadMean, r.WaitP50, r.WaitP99, r.PriceMean, r.PriceSDLn, r.Refused, float64(r.Revenue)/1000)
	}
	return t.Flush()
}

// WriteCSV writes every interval of every result.
func WriteCSV(w io.Writer, results []Result) error {
	out := csv.NewWriter(w)
	write := func(fields ...string) { out.Write(fields) } // out.Error returns its error
	write("policy", "time_s", "multiplier", "bound_by", "signal", "load", "waiting", "wait_mean_s", "refused", "revenue_msat")
	float := func(v float64) string { return strconv.FormatFloat(round4(v), 'f', -1, 64) }
	for _, r := range results {
		for _, s := range r.Series {
			write(r.Policy, float(s.At), float(s.Multiplier), s.BoundBy, float(s.Signal), float(s.Load),
				strconv.Itoa(s.Waiting), float(s.Wait), strconv.Itoa(s.Refused), strconv.FormatInt(s.Revenue, 10))
		}
	}
	out.Flush()
	return out.Error()
}

// clock returns seconds as text, in minutes and seconds.
func clock(seconds float64) string {
	return fmt.Sprintf("%d:%02d", int(seconds)/60, int(seconds)%60)
}

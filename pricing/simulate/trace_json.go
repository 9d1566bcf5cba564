package simulate

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"

	"sluice.example/sluice/pricing"
)

// answer is what a JSON recording may hold: a Prometheus answer or epochs.
type answer struct {
	Status string `json:"status"`
	Error  string `json:"error"`
	Data   *struct {
		ResultType string   `json:"resultType"`
		Result     []series `json:"result"`
	} `json:"data"`
	Epochs []pricing.Epoch `json:"epochs"`
}

type series struct {
	Metric map[string]string    `json:"metric"`
	Values [][2]json.RawMessage `json:"values"`
}

func readJSON(in io.Reader) ([]Row, error) {
	data, err := io.ReadAll(in)
	if err != nil {
		return nil, err
	}
	var a answer
	if data[0] == '[' {
		err = json.Unmarshal(data, &a.Epochs)
	} else {
		err = json.Unmarshal(data, &a)
	}
	switch {
	case err != nil:
		return nil, err
	case a.Status == "error":
		return nil, fmt.Errorf("the query failed: %s", a.Error)
	case a.Epochs != nil:
		return epochRows(a.Epochs)
	case a.Data == nil || a.Data.ResultType != "matrix":
		return nil, errors.New("want the answer of a range query (/api/v1/query_range) or a list of epochs")
	}
	return prometheusRows(a.Data.Result)
}

// source returns the column of a metric, and what one unit of the metric is in units of the column. A
// metric with an unknown name is read if it carries the name of a column as the label "column"
// (label_replace). column is "" for other metrics.
func source(metric map[string]string) (column string, unit float64) {
	switch name := cmp.Or(metric["column"], metric["__name__"]); name {
	case "running", "waiting", "capacity", "utilization", "multiplier":
		return name, 1
	case "vllm:num_requests_running", "sglang:num_running_reqs", "trtllm_num_requests_running", "llamacpp:requests_processing", "tgi_batch_current_size":
		return "running", 1
	case "vllm:num_requests_waiting", "sglang:num_queue_reqs", "trtllm_num_requests_waiting", "llamacpp:requests_deferred", "tgi_queue_size":
		return "waiting", 1
	case "DCGM_FI_PROF_GR_ENGINE_ACTIVE":
		return "utilization", 1
	case "DCGM_FI_DEV_GPU_UTIL":
		return "utilization", 0.01
	}
	return "", 0
}

// moment is what several series say about one time. For each column it holds the sum of the values and
// their number.
type moment map[string][2]float64

// prometheusRows joins the series moment by moment. Requests and capacity are summed, and utilization
// and multiplier are averaged.
func prometheusRows(list []series) ([]Row, error) {
	moments := map[float64]moment{}
	used := false
	for _, s := range list {
		column, unit := source(s.Metric)
		if column == "" {
			continue
		}
		used = true
		for _, pair := range s.Values {
			at, v, err := sample(pair)
			if err != nil {
				return nil, fmt.Errorf("series of %s: %w", column, err)
			}
			if moments[at] == nil {
				moments[at] = moment{}
			}
			if sum := moments[at][column]; !math.IsNaN(v) {
				moments[at][column] = [2]float64{sum[0] + v*unit, sum[1] + 1}
			}
		}
	}
	if !used {
		return nil, errors.New(`none of the series is known; say what it is in a label, as in label_replace(EXPR, "column", "running", "", "")`)
	}
	var rows []Row
	for _, at := range slices.Sorted(maps.Keys(moments)) {
		row := unknownRow(at)
		for _, column := range slices.Sorted(maps.Keys(moments[at])) {
			sum := moments[at][column]
			if column == "utilization" || column == "multiplier" {
				sum[0] /= sum[1]
			}
			if err := row.set(column, sum[0]); err != nil {
				return nil, fmt.Errorf("at %.0f: %w", at, err)
			}
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// sample reads [seconds, "value"].
func sample(pair [2]json.RawMessage) (at, v float64, err error) {
	var text string
	if err := json.Unmarshal(pair[0], &at); err != nil || math.Abs(at) > 1e12 {
		return 0, 0, fmt.Errorf("a time is %.40s, want seconds", pair[0])
	}
	if err := json.Unmarshal(pair[1], &text); err != nil {
		return 0, 0, fmt.Errorf("a value is %.40s, want a number as text", pair[1])
	}
	if v, err = strconv.ParseFloat(text, 64); err != nil {
		return 0, 0, fmt.Errorf("a value is %.40q, want a number", text)
	}
	return at, v, nil
}

// epochRows turns the published prices of one model into rows.
func epochRows(epochs []pricing.Epoch) ([]Row, error) {
	var rows []Row
	for _, e := range epochs {
		if e.At.IsZero() {
			continue // older versions stored some epochs without a time
		}
		if e.Model != epochs[0].Model {
			return nil, fmt.Errorf("there are epochs of %q and of %q: want those of one model", epochs[0].Model, e.Model)
		}
		row := unknownRow(float64(e.At.UnixMilli()) / 1000)
		if err := errors.Join(row.set("signal", e.Signal), row.set("multiplier", e.Multiplier)); err != nil {
			return nil, fmt.Errorf("epoch %d: %w", e.ID, err)
		}
		rows = append(rows, row)
	}
	slices.SortStableFunc(rows, func(a, b Row) int { return cmp.Compare(a.At, b.At) })
	slices.Reverse(rows) // of several epochs in one millisecond the last counts
	rows = slices.CompactFunc(rows, func(a, b Row) bool { return a.At == b.At })
	slices.Reverse(rows)
	return rows, nil
}

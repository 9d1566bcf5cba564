package simulate

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// readCSV reads a header and one line per moment. The column time_s is required, in seconds from any
// origin. At least one of the columns running, waiting and utilization is required too. capacity and
// multiplier are read as well, and other columns are ignored. A field that is empty or nan means not
// known. Lines that begin with # are comments.
func readCSV(in io.Reader) ([]Row, error) {
	r := csv.NewReader(in)
	r.Comment, r.TrimLeadingSpace, r.ReuseRecord = '#', true, true
	header, err := r.Read()
	if err != nil {
		return nil, csvError(err)
	}
	header = slices.Clone(header)
	for i := range header {
		header[i] = strings.ToLower(strings.TrimSpace(strings.TrimPrefix(header[i], "\ufeff")))
	}
	timeAt := slices.Index(header, "time_s")
	if timeAt < 0 {
		return nil, fmt.Errorf("there is no column time_s, only %s", strings.Join(header, ", "))
	}
	if !slices.ContainsFunc(header, func(h string) bool { return h == "running" || h == "waiting" || h == "utilization" }) {
		return nil, errors.New("there is none of the columns running, waiting and utilization")
	}
	var rows []Row
	for {
		record, err := r.Read()
		if errors.Is(err, io.EOF) {
			return rows, nil
		}
		if err != nil {
			return nil, csvError(err)
		}
		line, _ := r.FieldPos(0)
		row, err := csvRow(header, record, timeAt)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		if rows = append(rows, row); len(rows) > maxRows {
			return rows, nil // inOrder refuses so many rows
		}
	}
}

func csvError(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("there is no header")
	}
	return err
}

func csvRow(header, record []string, timeAt int) (Row, error) {
	at, err := number(record[timeAt])
	if err != nil || math.IsNaN(at) || math.Abs(at) > 1e12 {
		return Row{}, fmt.Errorf("time_s is %q, want seconds", record[timeAt])
	}
	row := unknownRow(at)
	for i, h := range header {
		if field, _ := row.column(h); field == nil || h == "signal" {
			continue
		}
		v, err := number(record[i])
		if err != nil {
			return Row{}, fmt.Errorf("%s is %q, want a number", h, record[i])
		}
		if err := row.set(h, v); err != nil {
			return Row{}, err
		}
	}
	return row, nil
}

// number reads a decimal number. It returns NaN for an empty text.
func number(s string) (float64, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return math.NaN(), nil
	}
	return strconv.ParseFloat(s, 64)
}

package simulate

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
)

// Sizes of the drawing, in SVG units.
const (
	plotWidth   = 860
	plotLeft    = 70
	plotRight   = 20
	plotTop     = 76
	panelHeight = 150
	panelGap    = 46
	plotBottom  = 46
	mostPoints  = 430 // per line; more points would be less than two units apart
)

// color returns the color of line i. People who cannot tell red from green can tell these colors apart
// (Okabe and Ito).
func color(i int) string {
	list := [...]string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"}
	return list[i%len(list)]
}

// panel is one quantity over time.
type panel struct {
	title string
	value func(Sample) float64
	least float64 // the axis reaches from 0 to at least this
}

// WritePlot draws price, load and queue over time as SVG, with a line per policy.
func WritePlot(w io.Writer, s Scenario, results []Result) error {
	if len(results) == 0 {
		return errors.New("plot: there is nothing to draw")
	}
	panels := []panel{
		{title: "price (multiplier of the rate card)", value: func(s Sample) float64 { return s.Multiplier }, least: 2},
		{title: "load (running / slots)", value: func(s Sample) float64 { return s.Load }, least: 1},
		{title: "queue (requests that wait)", value: func(s Sample) float64 { return float64(s.Waiting) }, least: 10},
	}
	height := plotTop + len(panels)*(panelHeight+panelGap) - panelGap + plotBottom
	d := &drawing{end: s.End}
	d.printf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12" fill="#333">`, plotWidth, height)
	d.printf(`<rect width="%d" height="%d" fill="#fff"/>`, plotWidth, height)
	d.printf(`<text x="%d" y="22" font-size="14">%s</text>`, plotLeft, escape(s.Name))
	x := plotLeft
	for i, r := range results {
		d.printf(`<line x1="%d" y1="42" x2="%d" y2="42" stroke="%s" stroke-width="3"/><text x="%d" y="46">%s</text>`, x, x+20, color(i), x+26, escape(r.Policy))
		x += 50 + 8*len(r.Policy)
	}
	for i, p := range panels {
		d.panel(plotTop+i*(panelHeight+panelGap), p, s, results)
	}
	d.printf(`<text x="%d" y="%d" text-anchor="middle">%s</text>`, (plotLeft+plotWidth-plotRight)/2, height-8, d.timeTitle())
	d.printf("</svg>")
	_, err := io.WriteString(w, d.b.String())
	return err
}

type drawing struct {
	b   strings.Builder
	end float64
}

func (d *drawing) printf(format string, args ...any) { fmt.Fprintf(&d.b, format+"\n", args...) }

func (d *drawing) x(at float64) float64 {
	return plotLeft + at/d.end*(plotWidth-plotLeft-plotRight)
}

// timeUnit returns the unit of the time axis: seconds, minutes or hours.
func (d *drawing) timeUnit() (name string, seconds float64) {
	switch {
	case d.end <= 300:
		return "seconds", 1
	case d.end <= 4*3600:
		return "minutes", 60
	default:
		return "hours", 3600
	}
}

func (d *drawing) timeTitle() string {
	name, _ := d.timeUnit()
	return "time (" + name + ")"
}

// panel draws the axes, the measured time in grey, and the lines.
func (d *drawing) panel(top int, p panel, s Scenario, results []Result) {
	high := p.least
	for _, r := range results {
		for _, sample := range r.Series {
			high = max(high, p.value(sample))
		}
	}
	step := niceStep(high / 4)
	high = math.Ceil(high/step-1e-9) * step
	y := func(v float64) float64 { return float64(top) + panelHeight*(1-v/high) }
	right := plotWidth - plotRight

	d.printf(`<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="#f2f2f2"/>`, d.x(s.From), top, d.x(s.To)-d.x(s.From), panelHeight)
	d.printf(`<text x="%d" y="%d">%s</text>`, plotLeft, top-6, escape(p.title))
	for v := 0.0; v <= high+step/2; v += step {
		d.printf(`<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%.4g</text>`,
			plotLeft, y(v), right, y(v), plotLeft-8, y(v)+4, v)
	}
	_, unit := d.timeUnit()
	every := niceStep(d.end / unit / 10)
	for t := 0.0; t*unit <= d.end+1e-9; t += every {
		x := d.x(t * unit)
		d.printf(`<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#999"/><text x="%.1f" y="%d" text-anchor="middle">%.4g</text>`,
			x, top+panelHeight, x, top+panelHeight+4, x, top+panelHeight+17, t)
	}
	d.printf(`<rect x="%d" y="%d" width="%d" height="%d" fill="none" stroke="#999"/>`, plotLeft, top, right-plotLeft, panelHeight)
	for i, r := range results {
		d.printf(`<polyline fill="none" stroke="%s" stroke-width="1.5" stroke-linejoin="round" points="%s"/>`, color(i), d.points(r.Series, p.value, y))
	}
}

// points returns the points of a line. It averages neighbouring samples if there are more samples than
// can be seen.
func (d *drawing) points(series []Sample, value func(Sample) float64, y func(float64) float64) string {
	var b strings.Builder
	each := (len(series) + mostPoints - 1) / mostPoints
	for i := 0; i < len(series); i += each {
		part := series[i:min(i+each, len(series))]
		at, v := 0.0, 0.0
		for _, s := range part {
			at += s.At
			v += value(s)
		}
		fmt.Fprintf(&b, "%.1f,%.1f ", d.x(at/float64(len(part))), y(v/float64(len(part))))
	}
	return strings.TrimSpace(b.String())
}

// niceStep returns the smallest number that is 1, 2, 2.5 or 5 times a power of ten and is not below v.
func niceStep(v float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, f := range []float64{1, 2, 2.5, 5} {
		if f*power >= v*(1-1e-9) {
			return f * power
		}
	}
	return 10 * power
}

func escape(s string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(s)) // a strings.Builder does not fail
	return b.String()
}

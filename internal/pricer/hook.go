package pricer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"sluice.example/sluice/pricing"
)

// Hook is the operator's own program for a price: a command or a URL. It gets a question as JSON, on
// its standard input or as the body of a POST. It answers with a multiplier, either as {"multiplier":
// 1.5} or as the number alone.
type Hook struct {
	Command []string
	URL     *url.URL
	Timeout time.Duration // zero means 1 s
}

// question is what the gateway tells a hook.
type question struct {
	Model      string    `json:"model"`
	Pressure   float64   `json:"pressure"`
	Fresh      bool      `json:"fresh"`      // the pressure is fresh
	Multiplier float64   `json:"multiplier"` // in force
	Running    float64   `json:"running"`
	Waiting    float64   `json:"waiting"`
	Capacity   float64   `json:"capacity"`
	At         time.Time `json:"at"`
}

// maxAnswer bounds a hook's answer, in bytes.
const maxAnswer = 4 << 10

// asker asks a hook, one question at a time, and remembers the last answer.
type asker struct {
	hook    Hook
	busy    atomic.Bool
	failed  atomic.Uint64
	current atomic.Pointer[given]
}

type given struct {
	multiplier float64
	at         time.Time
}

func newAsker(h Hook) *asker {
	if h.Timeout == 0 {
		h.Timeout = time.Second
	}
	return &asker{hook: h}
}

// latest returns the last answer, or NaN if there is no answer that is fresh.
func (a *asker) latest(now time.Time, within time.Duration) float64 {
	if g := a.current.Load(); g != nil && now.Sub(g.at) <= within {
		return g.multiplier
	}
	return math.NaN()
}

// ask asks a question in the background, unless the last question is still open.
func (a *asker) ask(q question) {
	if !a.busy.CompareAndSwap(false, true) {
		return
	}
	go func() {
		defer a.busy.Store(false)
		ctx, cancel := context.WithTimeout(context.Background(), a.hook.Timeout)
		defer cancel()
		m, err := a.hook.answer(ctx, q)
		if err != nil {
			a.failed.Add(1)
			return
		}
		a.current.Store(&given{m, q.At})
	}()
}

func (h Hook) answer(ctx context.Context, q question) (float64, error) {
	body, err := json.Marshal(q)
	if err != nil {
		return 0, err
	}
	var text []byte
	if h.URL != nil {
		text, err = h.post(ctx, body)
	} else {
		text, err = h.execute(ctx, body)
	}
	if err != nil {
		return 0, err
	}
	return parseAnswer(text)
}

func (h Hook) post(ctx context.Context, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("hook answered %s", resp.Status)
	}
	return io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
}

// execute runs the command. Of the gateway's environment the command gets only PATH and HOME, because
// other variables may hold secrets.
func (h Hook) execute(ctx context.Context, body []byte) ([]byte, error) {
	if len(h.Command) == 0 {
		return nil, errors.New("there is no hook")
	}
	var out limited
	c := exec.CommandContext(ctx, h.Command[0], h.Command[1:]...)
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}
	c.Stdin, c.Stdout = bytes.NewReader(body), &out
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) } // kills its children too
	c.WaitDelay = 100 * time.Millisecond
	err := c.Run()
	return out.b, err
}

// limited keeps the beginning of what is written.
type limited struct{ b []byte }

func (l *limited) Write(p []byte) (int, error) {
	l.b = append(l.b, p[:min(len(p), max(0, maxAnswer+1-len(l.b)))]...)
	return len(p), nil
}

// parseAnswer reads a multiplier, which must be above 0 and at most pricing.MaxMultiplier.
func parseAnswer(text []byte) (float64, error) {
	if len(text) > maxAnswer {
		return 0, errors.New("hook: the answer is too long")
	}
	var object struct {
		Multiplier *float64 `json:"multiplier"`
	}
	s := strings.TrimSpace(string(text))
	m, err := strconv.ParseFloat(s, 64)
	if err != nil {
		if err := json.Unmarshal(text, &object); err != nil || object.Multiplier == nil {
			return 0, errors.New(`hook: want {"multiplier": N} or a number`)
		}
		m = *object.Multiplier
	}
	if !(m > 0 && m <= pricing.MaxMultiplier) {
		return 0, fmt.Errorf("hook: a multiplier of %g cannot be", m)
	}
	return m, nil
}

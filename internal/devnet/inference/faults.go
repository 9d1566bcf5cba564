package inference

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// plan says which faults one answer has. Numbers of events include the role chunk. A number of -1
// means never. This is the table of all faults:
//
//	Name[:ARG]             what happens
//
//	before the first byte
//	status:CODE[:SECONDS]  an error answer with that status (400..599) and, with SECONDS, Retry-After
//	redirect[:URL]         302 to URL, default /elsewhere
//	drop                   the connection is closed without an answer
//	stall-headers[:DUR]    nothing for DUR, default for ever
//
//	the body ends or pauses; in a unary answer after half of the body
//	stall:N[:DUR]          nothing more after N events for DUR, default for ever
//	cut:N                  the connection is closed after N events
//	cut-mid:N              the connection is closed in the middle of the event after the first N
//	reset:N                TCP reset after N events
//	error-event:N          an error event after N events, then [DONE] (stream only)
//	no-done                no [DONE] at the end (stream only)
//	truncate               the body is shorter than its Content-Length (unary only)
//	slow-body[:DUR]        the body drips over DUR, default 2s (unary only)
//
//	what usage says; the server's own records stay right
//	no-usage               nothing anywhere
//	usage:KIND             the final usage is zero, negative, huge (2^63-1), overflow (1e30), text, fraction or null
//	running-usage:KIND     the same for the usage of all other chunks
//	usage-on-finish        final usage on the chunk with finish_reason, none after it (stream only)
//	cached:N               N of the prompt tokens are reported as cached
//
//	what is generated
//	ignore-max[:N]         N tokens more than the cap, default 64
//	empty                  no token at all
//	tool-calls             the text as arguments of a tool call
//	reasoning[:N]          the first N tokens as reasoning_content, default 8
//
//	how it is written
//	gzip                   Content-Encoding: gzip, asked for or not
//	huge-line[:BYTES]      one event (or the body) padded by BYTES of an unknown member, default 1 MiB
//	garbage:N              the event after the first N (or the body) is not JSON
//	merge:K                K tokens per chunk (stream only)
//	crlf, cr               other line ends (stream only)
//	split-data             each event on two data lines (stream only)
//	comments               a comment inside and between events (stream only)
//	after-done[:N]         N more content events after [DONE], default 1 (stream only)
//	hop-headers            hop-by-hop headers in the answer
//
//	other endpoints; only through Config.Faults and Server.Faults
//	tokenize-status:CODE   /tokenize answers CODE
//	tokenize-stall         /tokenize never answers
//	health-status:CODE     /health answers CODE
type plan struct {
	status, retryAfter           int
	redirect                     string
	drop                         bool
	stallHeaders                 *time.Duration // nil: no fault; 0: for ever
	stallAt, cutAt               int
	stallFor                     time.Duration
	cutMid, reset                bool
	errorAt                      int
	noDone, truncate             bool
	slowBody                     time.Duration
	noUsage, usageOnFinish       bool
	usage, runningUsage          string
	cached                       int
	extraTokens                  int
	empty, toolCalls             bool
	reasoning                    int
	gzip                         bool
	hugeLine                     int
	garbageAt                    int
	merge                        int
	lineEnd                      string
	splitData, comments          bool
	afterDone                    int
	hopHeaders                   bool
	tokenizeStatus, healthStatus int
	tokenizeStall                bool
}

// parseFaults reads a comma-separated list of the faults in the table of plan.
func parseFaults(list string) (*plan, error) {
	p := &plan{stallAt: -1, cutAt: -1, errorAt: -1, garbageAt: -1, lineEnd: "\n"}
	for item := range strings.SplitSeq(list, ",") {
		item = strings.TrimSpace(item)
		if item == "" {
			continue
		}
		name, arg, _ := strings.Cut(item, ":")
		set := faultSetter(p, name)
		if set == nil {
			return nil, fmt.Errorf("unknown fault %q", name)
		}
		if err := set(arg); err != nil {
			return nil, fmt.Errorf("fault %s: %w", item, err)
		}
	}
	return p, nil
}

// faultSetter returns the function that reads the argument of the named fault into p.
func faultSetter(p *plan, name string) func(arg string) error {
	setters := map[string]func(string) error{
		"status":   func(a string) error { return setStatus(&p.status, &p.retryAfter, a) },
		"redirect": func(a string) error { p.redirect = orDefault(a, "/elsewhere"); return nil },
		"drop":     toggle(&p.drop),
		"stall-headers": func(a string) error {
			p.stallHeaders = new(time.Duration)
			return setDuration(p.stallHeaders, a, 0)
		},

		"stall": func(a string) error {
			n, d, _ := strings.Cut(a, ":")
			if err := setDuration(&p.stallFor, d, 0); err != nil {
				return err
			}
			return setCount(&p.stallAt, n, 0)
		},
		"cut":         func(a string) error { return setCount(&p.cutAt, a, 0) },
		"cut-mid":     func(a string) error { p.cutMid = true; return setCount(&p.cutAt, a, 0) },
		"reset":       func(a string) error { p.reset = true; return setCount(&p.cutAt, a, 0) },
		"error-event": func(a string) error { return setCount(&p.errorAt, a, 0) },
		"no-done":     toggle(&p.noDone),
		"truncate":    toggle(&p.truncate),
		"slow-body":   func(a string) error { return setDuration(&p.slowBody, a, 2*time.Second) },

		"no-usage":        toggle(&p.noUsage),
		"usage":           func(a string) error { return setKind(&p.usage, a) },
		"running-usage":   func(a string) error { return setKind(&p.runningUsage, a) },
		"usage-on-finish": toggle(&p.usageOnFinish),
		"cached":          func(a string) error { return setCount(&p.cached, a, 0) },

		"ignore-max": func(a string) error { return setCount(&p.extraTokens, a, 64) },
		"empty":      toggle(&p.empty),
		"tool-calls": toggle(&p.toolCalls),
		"reasoning":  func(a string) error { return setCount(&p.reasoning, a, 8) },

		"gzip":        toggle(&p.gzip),
		"huge-line":   func(a string) error { return setCount(&p.hugeLine, a, 1<<20) },
		"garbage":     func(a string) error { return setCount(&p.garbageAt, a, 0) },
		"merge":       func(a string) error { return setCount(&p.merge, a, 4) },
		"crlf":        func(string) error { p.lineEnd = "\r\n"; return nil },
		"cr":          func(string) error { p.lineEnd = "\r"; return nil },
		"split-data":  toggle(&p.splitData),
		"comments":    toggle(&p.comments),
		"after-done":  func(a string) error { return setCount(&p.afterDone, a, 1) },
		"hop-headers": toggle(&p.hopHeaders),

		"tokenize-status": func(a string) error { return setStatus(&p.tokenizeStatus, new(int), a) },
		"tokenize-stall":  toggle(&p.tokenizeStall),
		"health-status":   func(a string) error { return setStatus(&p.healthStatus, new(int), a) },
	}
	return setters[name]
}

func orDefault(arg, otherwise string) string {
	if arg == "" {
		return otherwise
	}
	return arg
}

func toggle(b *bool) func(string) error {
	return func(arg string) error {
		if arg != "" {
			return fmt.Errorf("takes no argument, got %q", arg)
		}
		*b = true
		return nil
	}
}

func setCount(n *int, arg string, otherwise int) error {
	*n = otherwise
	if arg == "" {
		return nil
	}
	v, err := strconv.Atoi(arg)
	if err != nil || v < 0 {
		return fmt.Errorf("want a count, got %q", arg)
	}
	*n = v
	return nil
}

func setDuration(d *time.Duration, arg string, otherwise time.Duration) error {
	*d = otherwise
	if arg == "" {
		return nil
	}
	v, err := time.ParseDuration(arg)
	if err != nil || v <= 0 {
		return fmt.Errorf("want a duration like 500ms, got %q", arg)
	}
	*d = v
	return nil
}

func setStatus(status, retryAfter *int, arg string) error {
	code, seconds, _ := strings.Cut(arg, ":")
	if err := setCount(status, code, http.StatusInternalServerError); err != nil {
		return err
	}
	if *status < 400 || *status > 599 {
		return fmt.Errorf("want a status within 400 and 599, got %q", code)
	}
	return setCount(retryAfter, seconds, 0)
}

func setKind(kind *string, arg string) error {
	*kind = arg
	kinds := []string{"zero", "negative", "huge", "overflow", "text", "fraction", "null"}
	if !slices.Contains(kinds, arg) {
		return fmt.Errorf("want one of %s, got %q", strings.Join(kinds, ", "), arg)
	}
	return nil
}

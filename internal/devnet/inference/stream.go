package inference

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// errOver reports that a scripted fault ended the stream without an error on the connection.
var errOver = errors.New("scripted end of the stream")

// stream writes one answer as server-sent events.
type stream struct {
	*answer
	ctx     context.Context
	rc      *http.ResponseController
	out     io.Writer
	gz      *gzip.Writer
	head    []byte // the beginning of every chunk, up to its choices
	buf     []byte // the event that is being built
	framed  []byte // the same event with its line ends
	events  int
	started bool
	parts   []part // by sequence
}

// part is what a sequence has generated and the stream has not sent yet.
type part struct {
	text   string
	tokens int
}

func (a *answer) stream(ctx context.Context, w http.ResponseWriter) error {
	st := &stream{answer: a, ctx: ctx, rc: http.NewResponseController(w), out: w, parts: make([]part, len(a.sequences))}
	st.head = appendQuoted([]byte(`{"id":`), a.id)
	st.head = strconv.AppendInt(append(st.head, `,"object":"`+a.q.object(".chunk")+`","created":`...), a.created, 10)
	st.head = append(appendQuoted(append(st.head, `,"model":`...), a.s.cfg.Model), `,"choices":[`...)

	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	w.Header().Set("Cache-Control", "no-cache")
	if a.plan.gzip {
		w.Header().Set("Content-Encoding", "gzip")
		st.gz = gzip.NewWriter(w)
		st.out = st.gz
	}
	err := st.run()
	if st.gz != nil && (err == nil || errors.Is(err, errOver)) {
		err = errors.Join(err, st.gz.Close())
	}
	return err
}

func (st *stream) run() error {
	if err := st.flush(); err != nil { // send the headers
		return err
	}
	if err := st.generate(st.ctx, st.token, st.flush); err != nil {
		return err
	}
	if err := st.flush(); err != nil {
		return err
	}
	st.free()
	if st.q.includeUsage && !st.plan.noUsage && !st.plan.usageOnFinish {
		st.buf = append(append(st.buf[:0], st.head...), `],"usage":`...)
		st.buf = append(st.plan.appendUsage(st.buf, st.plan.usage, st.q.promptTokens(), st.generated), '}')
		if err := st.event(st.buf); err != nil {
			return err
		}
	}
	if st.plan.noDone {
		return nil
	}
	if err := st.event([]byte("[DONE]")); err != nil {
		return err
	}
	for range st.plan.afterDone {
		if err := st.delta(st.sequences[0], st.content(st.sequences[0], " more"), ""); err != nil {
			return err
		}
	}
	return nil
}

// token sends the text of one token. When the plan merges tokens, it sends the text of several
// tokens together.
func (st *stream) token(q *sequence, text string) error {
	if err := st.start(); err != nil {
		return err
	}
	p := &st.parts[q.index]
	p.text += text
	p.tokens++
	if p.tokens < st.plan.merge && q.finish == "" {
		return nil
	}
	if p.text != "" {
		if err := st.delta(q, st.content(q, p.text), ""); err != nil {
			return err
		}
	}
	*p = part{}
	if q.finish == "" {
		return nil
	}
	if !st.plan.toolCalls || st.q.prompts != nil {
		return st.delta(q, st.content(q, ""), q.finish)
	}
	if err := st.delta(q, toolArguments(`"}`), ""); err != nil {
		return err
	}
	return st.delta(q, `{"content":""}`, "tool_calls")
}

// start writes the role chunk of every sequence before any other chunk.
func (st *stream) start() error {
	if st.started || st.q.prompts != nil {
		return nil
	}
	st.started = true
	for _, q := range st.sequences {
		delta := `{"role":"assistant","content":""}`
		if st.plan.toolCalls {
			delta = `{"role":"assistant","content":null,"tool_calls":[{"index":0,"id":"call_0","type":"function","function":{"name":"say","arguments":"{\"text\":\""}}]}`
		}
		silent := &sequence{index: q.index} // its running usage counts no tokens yet
		if err := st.delta(silent, delta, ""); err != nil {
			return err
		}
	}
	return nil
}

// content returns the delta object that contains text. For completions it returns the text itself
// as a JSON string.
func (st *stream) content(q *sequence, text string) string {
	switch {
	case st.q.prompts != nil:
		return string(appendQuoted(nil, text))
	case text == "":
		return `{"content":""}`
	case st.plan.toolCalls:
		inner := appendQuoted(nil, text)
		return toolArguments(string(inner[1 : len(inner)-1]))
	case q.tokens <= st.plan.reasoning:
		return string(appendQuoted([]byte(`{"reasoning_content":`), text)) + "}"
	}
	return string(appendQuoted([]byte(`{"content":`), text)) + "}"
}

func toolArguments(fragment string) string {
	return string(appendQuoted([]byte(`{"tool_calls":[{"index":0,"function":{"arguments":`), fragment)) + `}}]}`
}

// delta writes one chunk with one choice.
func (st *stream) delta(q *sequence, delta, finish string) error {
	b := append(append(st.buf[:0], st.head...), `{"index":`...)
	b = append(append(strconv.AppendInt(b, int64(q.index), 10), st.q.output()...), delta...)
	b = append(b, `,"logprobs":null,"finish_reason":`...)
	if finish == "" {
		b = append(b, "null}]"...)
	} else {
		b = append(appendQuoted(b, finish), "}]"...)
	}
	prompt := st.q.promptTokens()
	switch {
	case st.plan.noUsage:
	case finish != "" && st.plan.usageOnFinish && st.q.includeUsage:
		b = st.plan.appendUsage(append(b, `,"usage":`...), st.plan.usage, prompt, st.generated)
	case st.q.continuousUsage:
		// As in vLLM, running usage counts only this choice and its prompt. The final usage has the
		// sum.
		b = st.plan.appendUsage(append(b, `,"usage":`...), st.plan.runningUsage, st.q.promptOf(q), q.tokens)
	}
	st.buf = append(b, '}')
	return st.event(st.buf)
}

// event writes one event, with the faults that are due at this event. The events are sent at the
// next wait or at the end, so that all events of one moment share one write call.
func (st *stream) event(payload []byte) error {
	p := st.plan
	n := st.events
	st.events++
	if n == p.errorAt {
		failure := []byte(`{"error":{"message":"scripted fault","type":"InternalServerError","param":null,"code":500}}`)
		return errors.Join(st.write(failure), st.write([]byte("[DONE]")), errOver)
	}
	if n == p.stallAt {
		if err := st.flush(); err != nil {
			return err
		}
		if err := stall(st.ctx, p.stallFor); err != nil {
			return err
		}
	}
	switch {
	case n == p.garbageAt:
		payload = payload[:len(payload)/2]
	case n == 1 && p.hugeLine > 0:
		payload = pad(payload, p.hugeLine)
	}
	if n == p.cutAt {
		var err error
		if p.cutMid {
			_, err = st.out.Write(st.frame(payload)[:len(payload)/2])
		}
		return errors.Join(err, st.flush(), errFault)
	}
	return st.write(payload)
}

// pad adds a member of n bytes to a JSON object.
func pad(object []byte, n int) []byte {
	open := bytes.TrimSuffix(object, []byte("}"))
	if len(open) == len(object) {
		return object
	}
	return append(append(bytes.Clone(open), `,"padding":"`...), strings.Repeat("x", n)+`"}`...)
}

// frame returns the complete event for a payload. The result is valid until the next call.
func (st *stream) frame(payload []byte) []byte {
	end := st.plan.lineEnd
	b := st.framed[:0]
	if st.plan.comments {
		b = append(append(append(b, ": ping"...), end...), end...)
		b = append(append(b, ": inside"...), end...)
	}
	b = append(b, "data: "...)
	if first, rest, ok := bytes.Cut(payload, []byte(",")); ok && st.plan.splitData {
		b = append(append(append(append(b, first...), ','), end...), "data: "...)
		payload = rest
	}
	st.framed = append(append(append(b, payload...), end...), end...)
	return st.framed
}

func (st *stream) write(payload []byte) error {
	_, err := st.out.Write(st.frame(payload))
	return err
}

func (st *stream) flush() error {
	if st.gz != nil {
		if err := st.gz.Flush(); err != nil {
			return err
		}
	}
	return st.rc.Flush()
}

package openai

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"

	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/rawjson"
)

// usage is what a backend reported, as it did: counts may be negative.
type usage struct {
	prompt, completion int64
	cached             int64 // the part of prompt that a cache served
	reasoning          int64 // the part of completion that is reasoning
	beside             int64 // tokens that only the total has: reasoning that completion leaves out
	total              int64 // of both, where nothing else is said; else 0
}

// readUsage reads a usage object, with the names of several APIs. It reports false
// when that has no count.
func readUsage(v []byte) (u usage, ok bool) {
	var prompt, completion, total counted
	for c := rawjson.Members(v); c.More(); {
		key, value := c.Member()
		switch string(key) {
		case "prompt_tokens", "input_tokens", "promptTokens", "inputTokens":
			prompt.read(value)
		case "completion_tokens", "output_tokens", "completionTokens", "outputTokens":
			completion.read(value)
		case "total_tokens", "totalTokens":
			total.read(value)
		case "prompt_tokens_details", "input_tokens_details":
			if n := detail(value, "cached_tokens"); n != 0 {
				u.cached = n
			}
		case "prompt_cache_hit_tokens", "cached_tokens": // DeepSeek; Moonshot
			if n, _ := figure(value); n != 0 {
				u.cached = n
			}
		case "completion_tokens_details", "output_tokens_details":
			u.reasoning = max(u.reasoning, detail(value, "reasoning_tokens"))
		case "reasoning_tokens": // SGLang
			n, _ := figure(value)
			u.reasoning = max(u.reasoning, n)
		}
	}
	u.prompt, u.completion = prompt.n, completion.n
	switch {
	case prompt.ok && total.ok && u.prompt >= 0 && u.completion >= 0 && total.n > u.prompt:
		u.readTotal(total.n-u.prompt, completion.ok)
	case !prompt.ok && !completion.ok && total.n > 0:
		u.total = total.n
	}
	return u, prompt.ok || completion.ok || u.total > 0
}

// counted is a count under one of several names. Where two of them are there the
// larger one stands, since some servers send zeros under the names that they do not use;
// a negative number stays unless another name has more.
type counted struct {
	n  int64
	ok bool
}

func (c *counted) read(v []byte) {
	if n, ok := figure(v); ok && (!c.ok || n > c.n) {
		c.n, c.ok = n, true
	}
}

// figure is a number, or a string of digits, as some servers write counts.
func figure(v []byte) (int64, bool) {
	if rawjson.IsString(v) && len(v) > 2 {
		if v = bytes.TrimSpace(rawjson.Unquote(v)); len(v) == 0 || json.Unmarshal(v, new(float64)) != nil {
			return 0, false
		}
	}
	return number(v)
}

// readTotal takes from a total, of which the prompt was taken off, what the other
// members leave out. Some servers do not name the completion at all. Others leave
// the reasoning out of it. Where they say how much reasoning there was, the rest of
// the total is not believed; and a total that counts cached tokens beside a prompt
// without them says nothing of the completion.
func (u *usage) readTotal(rest int64, hasCompletion bool) {
	more := rest - u.completion
	switch {
	case more <= 0:
		u.reasoning = min(u.reasoning, u.completion) // whatever is said of it, no more than this was generated
	case !hasCompletion:
		u.completion = rest
	case more == u.cached:
		u.cached = 0 // no part of this prompt
	case u.reasoning <= 0:
		u.beside = more
	case more >= u.reasoning:
		u.beside = u.reasoning
	}
}

// tokens is what was generated: the completion, and the reasoning beside it: what
// only the total has, or what is larger than the completion and so cannot be a part
// of it.
func (u usage) tokens() int64 {
	if u.reasoning > u.completion {
		return format.AddSat(max(0, u.completion), u.reasoning)
	}
	return format.AddSat(u.completion, u.beside)
}

// believedCache is the part of the prompt that a cache served; 0 where that is said to
// be more than the prompt.
func (u usage) believedCache() int64 {
	if u.cached < 0 || u.cached > u.prompt {
		return 0
	}
	return u.cached
}

// readTimings reads the running counts of llama.cpp: the prompt is what was read
// now and what its cache had.
func readTimings(v []byte) (u usage, ok bool) {
	var fresh int64
	for c := rawjson.Members(v); c.More(); {
		key, value := c.Member()
		switch string(key) {
		case "predicted_n":
			u.completion, ok = number(value)
		case "prompt_n":
			fresh, _ = number(value)
		case "cache_n":
			u.cached, _ = number(value)
		}
	}
	u.prompt = format.AddSat(max(0, fresh), max(0, u.cached))
	return u, ok && u.completion >= 0
}

// groqUsage is the usage that Groq puts into the last chunk of a stream, within a
// member of its own; nil: there is none.
func groqUsage(v []byte) []byte {
	for c := rawjson.Members(v); c.More(); {
		key, value := c.Member()
		if string(key) != "x_groq" || value[0] != '{' {
			continue
		}
		for w := rawjson.Members(value); w.More(); {
			if key, value := w.Member(); string(key) == "usage" && value[0] == '{' {
				return value
			}
		}
	}
	return nil
}

// detail is one count within an object; 0 when it is not there.
func detail(v []byte, name string) int64 {
	if v[0] != '{' {
		return 0
	}
	for c := rawjson.Members(v); c.More(); {
		if key, value := c.Member(); string(key) == name {
			n, _ := figure(value)
			return n
		}
	}
	return 0
}

// number reads a count. A fraction is cut off, what exceeds an int64 is the
// nearest one.
func number(v []byte) (int64, bool) {
	if v[0] != '-' && (v[0] < '0' || v[0] > '9') {
		return 0, false
	}
	if n, err := strconv.ParseInt(string(v), 10, 64); err == nil {
		return n, true
	}
	f, _ := strconv.ParseFloat(string(v), 64) // valid JSON; out of range gives an infinity
	switch {
	case f >= math.MaxInt64:
		return math.MaxInt64, true
	case f <= math.MinInt64:
		return math.MinInt64, true
	}
	return int64(f), true
}

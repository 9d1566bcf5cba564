package gateway

import (
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"sluice.example/sluice/metering/format"
)

// contextLength finds the length of the model's context in an engine's words. vLLM, SGLang and
// TensorRT-LLM write "context length" or similar; TGI writes "must be <= 8192".
var contextLength = regexp.MustCompile(`(?:context (?:length|window|size)|<=)\D{0,24}(\d{1,12})`)

var numbers = regexp.MustCompile(`\d{1,12}`)

// refit lowers a cap that the gateway has chosen, if the engine refused the request because the
// prompt and the cap together exceed its context. It reports whether it lowered the cap, which
// happens at most once per request.
func (c *call) refit(resp *http.Response) bool {
	return (resp.StatusCode == http.StatusBadRequest || resp.StatusCode == http.StatusUnprocessableEntity) &&
		c.refittable() && c.fit(c.readRefusal(resp))
}

// refitWithin is refit for an engine that refuses the request within an answer of 200, before
// any part of the answer.
func (c *call) refitWithin() bool {
	if !c.meter.Failed() || c.meter.Started() || c.x.status != 0 || !c.refittable() {
		return false
	}
	said := saidWithin(c.meter.Failure(), c.o.model.headers)
	return c.fit(&said)
}

func (c *call) refittable() bool { return !c.refitted && !c.o.req.HasCap() && c.ctx.Err() == nil }

// fit lowers the cap to what the engine's words leave for it, and reports whether it did. If the
// words do not tell the length of the prompt, fit assumes a count of tokens that a text of this
// length rarely exceeds.
func (c *call) fit(said *refusal) bool {
	limit, prompt := said.tooLong(c.o.bound.Cap, c.o.bound.Input)
	if limit == 0 {
		return false
	}
	if prompt == 0 {
		prompt = c.o.req.PromptBytes() / format.DenseBytes
	}
	left := limit - prompt
	if left < 1 || left >= c.o.bound.Cap {
		return false
	}
	c.refitted, c.o.bound = true, c.o.bound.WithCap(left)
	return true
}

// tooLong finds, in the words of an engine that refused a request with the given cap, the length
// of its context and of the prompt, in tokens. most is the most tokens that the prompt can have.
// A limit of 0 means that the words speak of something else; a prompt of 0 means that they do
// not tell its length.
func (r *refusal) tooLong(cap, most int64) (limit, prompt int64) {
	text := strings.ToLower(r.Message)
	found := contextLength.FindStringSubmatch(text)
	if found == nil || !strings.Contains(text, "token") && !strings.Contains(text, "context") {
		return 0, 0
	}
	if limit, _ = strconv.ParseInt(found[1], 10, 64); limit <= 0 {
		return 0, 0
	}
	for _, digits := range numbers.FindAllString(text, -1) {
		if n, _ := strconv.ParseInt(digits, 10, 64); n < limit && n != cap && n <= most && n > limit-cap {
			prompt = max(prompt, n)
		}
	}
	return limit, prompt
}

package openai_test

// heldBack lists tokens without their text, then says all of it in one call.
func heldBack(s *script) *play {
	s.role()
	s.made = make([]int, 1)
	for range s.tokens {
		s.say(0, 1, func(text string) string {
			return `"delta":{},"logprobs":{"content":[{"token":"` + text + `","logprob":-1}]}`
		}, "")
	}
	s.finish("tool_calls", "")
	s.total()
	return s.done()
}

// failing says some words, then that it failed.
func failing(s *script) *play {
	s.failed = true
	s.role()
	s.run(contentForm, nothing)
	s.add([...]string{
		`data: {"error":{"message":"out of memory","code":500}}`, `data: {"object":"error","message":"lost","code":500}`,
		`data: {"detail":"lost"}`, `data: {"choices":[],"errors":["lost"]}`, "data: Internal Server Error", "event: exception\ndata: {}",
		"data: " + `{"choices":[{"index":0,"delta":{"content":"lost"},"finish_reason":"error","error":{"code":502,"message":"lost"}}]}`,
		"data: " + `{"choices":[{"index":0,"delta":{},"finish_reason":{"type":"abort"}}]}`,
		"data: " + `{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"x_groq":{"id":"r","error":"over_capacity"}}`,
		`data: {"choices":null,"base_resp":{"status_code":1002,"status_msg":"rate limit"}}`,
		`data: {"code":"Throttling.RateQuota","message":"try again later"}`, `data: {"status":"cancelled"}`, `data: {"success":false}`,
	}[s.rng.IntN(13)] + "\n\n")
	return s.done()
}

// sequences are completions that end one after the other, each with its usage.
func sequences(s *script) *play {
	s.n, s.sequences = 1+s.rng.IntN(4), true
	s.role()
	s.made = make([]int, s.n)
	for i := range s.n {
		for range s.tokens {
			s.say(i, 1, contentForm, "")
		}
		s.add(chunk(i, `"delta":{},"finish_reason":"stop"`, ""))
		s.add(`data: {"choices":[],"usage":` + s.usageOf(s.tokens) + "}\n\n")
		s.pieces[len(s.pieces)-1].usage = true
	}
	return s.done()
}

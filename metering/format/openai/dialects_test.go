package openai_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// piece is a part of a stream as a server writes it.
type piece struct {
	raw    string
	choice int
	tokens int    // that it delivers
	text   string // that it delivers
	deltas int    // events with text in it, 0 or 1
	usage  bool   // a usage that ends what is known of a completion
}

// play is what a server says to one request, and what is true of it.
type play struct {
	pieces     []piece
	n          int // completions
	prompt     int
	length     int  // bytes of each token
	perDelta   int  // tokens in each event
	running    bool // every event with text says how many tokens there are
	sequences  bool // each completion has a usage of its own
	timings    bool // the profile asks for them
	failed     bool // an error is in it
	learned    bool // counts rest on how many tokens earlier streams had in an event
	taught     int  // bytes of each token in the earlier answers, which need not be those of this one
	documents  bool // the earlier answers were documents
	noisy      bool // something that a usage refutes counts until it comes
	opaque     bool // the text cannot be told from the events
	unfinished bool // nothing in it says that the answer has ended
	extra      int  // tokens that only the usage knows, such as hidden reasoning
}

// script builds a play.
type script struct {
	*play
	rng     *rand.Rand
	tokens  int // of each completion
	made    []int
	blank   bool // its tokens are runs of blanks
	usageOf func(completion int) string
}

func newScript(seed uint64) *script {
	rng := rand.New(rand.NewPCG(seed, 1))
	s := &script{play: &play{n: 1, prompt: 1 + rng.IntN(29), length: 1 + rng.IntN(12), perDelta: 1}, rng: rng, tokens: rng.IntN(24)}
	s.taught, s.documents = rng.IntN(13), rng.IntN(2) == 0 // 0: there was none
	s.usageOf = func(c int) string {
		return fmt.Sprintf(`{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}`, s.prompt, c, s.prompt+c)
	}
	return s
}

// word is the text of some tokens.
func (s *script) word(tokens int) string {
	var b strings.Builder
	if s.blank {
		return strings.Repeat(" ", 128*tokens)
	}
	for range tokens * s.length {
		b.WriteByte(byte('a' + s.rng.IntN(26)))
	}
	return b.String()
}

func (s *script) add(raw string) { s.pieces = append(s.pieces, piece{raw: raw}) }

// chunk is an event with one choice.
func chunk(index int, members, more string) string {
	return fmt.Sprintf(`data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":%d,%s}]%s}`+"\n\n", index, members, more)
}

// say adds an event that delivers tokens; form makes its choice of the text, and
// more what stands beside the choices.
func (s *script) say(index, tokens int, form func(text string) string, more string) {
	text := s.word(tokens)
	s.made[index] += tokens
	s.pieces = append(s.pieces, piece{raw: chunk(index, form(text)+`,"finish_reason":null`, more), choice: index, tokens: tokens, text: text, deltas: 1})
}

func contentForm(text string) string   { return `"delta":{"content":"` + text + `"}` }
func reasoningForm(text string) string { return `"delta":{"reasoning_content":"` + text + `"}` }

// run lets each completion say its tokens, in turn, in a form and with members
// beside the choices that depend on how many there are.
func (s *script) run(form func(string) string, more func(index int) string) {
	s.made = make([]int, s.n)
	for left := true; left; {
		left = false
		for i := range s.n {
			if rest := s.tokens - s.made[i]; rest > 0 {
				left = true
				n := min(s.perDelta, rest)
				s.made[i] += n
				beside := more(i)
				s.made[i] -= n
				s.say(i, n, form, beside)
			}
		}
	}
}

func nothing(int) string { return "" }

// finish ends each completion, with members beside the choices.
func (s *script) finish(reason, more string) {
	for i := range s.n {
		s.add(chunk(i, `"delta":{},"finish_reason":"`+reason+`"`, more))
	}
}

// total adds the usage of everything.
func (s *script) total() {
	s.add(`data: {"id":"c","object":"chat.completion.chunk","choices":[],"usage":` + s.usageOf(s.n*s.tokens) + "}\n\n")
	s.pieces[len(s.pieces)-1].usage = true
}

func (s *script) done() *play { s.add("data: [DONE]\n\n"); return s.play }

func (s *script) role() {
	for i := range s.n {
		s.add(chunk(i, `"delta":{"role":"assistant","content":""},"finish_reason":null`, ""))
	}
}

// plain is the usual stream.
func (s *script) plain() *play {
	s.role()
	s.run(contentForm, nothing)
	s.finish("stop", "")
	s.total()
	return s.done()
}

// continuous is a stream with a usage in each chunk.
func (s *script) continuous() *play {
	s.running = true
	s.role()
	s.run(contentForm, func(i int) string { return `,"usage":` + s.usageOf(s.made[i]) })
	s.finish("stop", "")
	s.total()
	return s.done()
}

// rewritten is a play with each piece's lines written in another way.
func rewritten(p *play, how func(string) string) *play {
	for i := range p.pieces {
		p.pieces[i].raw = how(p.pieces[i].raw)
	}
	return p
}

func lineEnds(end string) func(string) string {
	return func(raw string) string { return strings.ReplaceAll(raw, "\n", end) }
}

// dialects are the ways in which servers speak.
var dialects = []struct {
	name string
	play func(*script) *play
}{
	{"vLLM", func(s *script) *play { s.n = 1 + s.rng.IntN(3); return s.plain() }},
	{"vLLM, running usage", func(s *script) *play { s.n = 1 + s.rng.IntN(3); return s.continuous() }},
	{"vLLM, a tool parser holds back", heldBack},
	{"vLLM, reasoning", func(s *script) *play {
		s.role()
		s.run(reasoningForm, nothing)
		s.finish("stop", "")
		s.total()
		return s.done()
	}},
	{"vLLM, an error and the marker", failing},
	{"vLLM, token ids", func(s *script) *play {
		s.role()
		s.run(func(text string) string { return contentForm(text) + `,"token_ids":[7]` }, nothing)
		s.finish("stop", "")
		return s.done()
	}},
	{"SGLang", func(s *script) *play {
		s.running = true
		s.run(contentForm, func(i int) string { return `,"usage":` + s.usageOf(s.made[i]) })
		s.finish("stop", "")
		s.total()
		return s.done()
	}},
	{"llama.cpp, several completions", sequences},
	{"llama.cpp, timings", func(s *script) *play {
		s.running, s.timings, s.perDelta = true, true, 1+s.rng.IntN(4)
		s.role()
		s.run(contentForm, func(i int) string {
			return fmt.Sprintf(`,"timings":{"cache_n":0,"prompt_n":%d,"predicted_n":%d}`, s.prompt, s.made[i])
		})
		s.finish("stop", "")
		s.total()
		return s.done()
	}},
	{"Ollama", func(s *script) *play {
		s.run(func(text string) string { return `"delta":{"role":"assistant","content":"` + text + `"}` },
			func(int) string { return `,"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}` })
		s.finish("stop", "")
		s.total()
		return s.done()
	}},
	{"TGI", func(s *script) *play {
		s.run(contentForm, func(int) string { return `,"usage":null` })
		s.finish("eos_token", `,"usage":`+s.usageOf(s.tokens))
		s.pieces[len(s.pieces)-1].usage = true
		return s.done()
	}},
	{"TensorRT-LLM", func(s *script) *play { s.perDelta = 1; return s.continuous() }},
	{"OpenAI", func(s *script) *play {
		s.role()
		s.run(contentForm, func(int) string { return `,"usage":null,"obfuscation":"` + s.word(3) + `"` })
		s.finish("stop", `,"usage":null`)
		s.total()
		return s.done()
	}},
	{"LM Studio", func(s *script) *play {
		s.role()
		s.run(func(text string) string { return contentForm(text) + `,"logprobs":null` }, func(int) string { return `,"stats":{}` })
		s.finish("stop", `,"stats":{"draft":null}`)
		s.total()
		return s.done()
	}},
	{"heartbeats", func(s *script) *play {
		beats := []string{"data: ping\n\n", "data:\ndata:\n\n", "data: {\"message\":\"busy\",\"code\":0}\n\n", ": ping\n", ": ping\n\n", "event: ping\ndata: {\"type\":\"ping\"}\n\n", "\n\n", "event: ping\n\n", ":\n"}
		return rewritten(s.plain(), func(raw string) string { return beats[s.rng.IntN(len(beats))] + raw })
	}},
	{"CR", func(s *script) *play { return rewritten(s.plain(), lineEnds("\r")) }},
	{"CRLF", func(s *script) *play { return rewritten(s.plain(), lineEnds("\r\n")) }},
	{"one line end", func(s *script) *play {
		end := [...]string{"\n", "\r", "\r\n"}[s.rng.IntN(3)]
		return rewritten(s.plain(), func(raw string) string { return strings.TrimSuffix(raw, "\n\n") + end })
	}},
	{"ids and retries", func(s *script) *play {
		return rewritten(s.plain(), func(raw string) string { return "id: 1\nretry: 5\nevent: message\n" + raw })
	}},
	{"a usage first", func(s *script) *play {
		s.role()
		s.add(`data: {"choices":[],"usage":` + s.usageOf(1) + "}\n\n")
		s.run(contentForm, nothing)
		s.unfinished = true
		return s.play
	}},
	{"a usage first, members of tomorrow", func(s *script) *play {
		s.role()
		s.add(`data: {"choices":[],"usage":` + s.usageOf(min(1, s.tokens)) + "}\n\n")
		s.run(func(text string) string { return `"delta":{"inner":{"words":["` + text + `"]}}` }, nothing)
		s.finish("stop", "")
		return s.done()
	}},
	{"no usage", func(s *script) *play {
		s.run(contentForm, nothing)
		s.finish("length", "")
		return s.done()
	}},
	{"a usage without reasoning", func(s *script) *play {
		s.extra = s.rng.IntN(40)
		s.usageOf = func(c int) string {
			return fmt.Sprintf(`{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}`, s.prompt, c, s.prompt+c+s.extra)
		}
		return s.plain()
	}},
	{"a marker without a reason", func(s *script) *play {
		s.unfinished = true
		s.role()
		s.run(contentForm, nothing)
		if s.rng.IntN(2) == 0 {
			s.total()
		}
		return s.done()
	}},
	{"one of two, and the marker", func(s *script) *play {
		s.n, s.unfinished = 2, true
		s.run(contentForm, nothing)
		s.add(chunk(1, `"delta":{},"finish_reason":"stop"`, ""))
		return s.done()
	}},
	{"Groq", func(s *script) *play {
		s.role()
		s.run(contentForm, nothing)
		s.finish("stop", `,"x_groq":{"id":"r","usage":`+s.usageOf(s.tokens)+`}`)
		s.pieces[len(s.pieces)-1].usage = true
		return s.done()
	}},
	{"numbers that are none", func(s *script) *play {
		s.run(func(text string) string {
			return contentForm(text) + `,"logprobs":{"content":[{"token":"x","logprob":-Infinity,"top_logprobs":[{"logprob":NaN}]}]}`
		}, nothing)
		s.finish("stop", "")
		s.total()
		return s.done()
	}},
	{"empty reasons", func(s *script) *play {
		s.run(contentForm, nothing)
		s.unfinished = true
		return rewritten(s.play, func(raw string) string {
			return strings.Replace(raw, `"finish_reason":null`, `"finish_reason":`+[...]string{`""`, `"null"`, `"None"`, `" "`, `"undefined"`, `{}`}[s.rng.IntN(6)], 1)
		})
	}},
	{"several tokens in an event, learned", func(s *script) *play {
		s.perDelta, s.learned, s.taught, s.documents = 2+s.rng.IntN(6), true, 1+s.rng.IntN(12), false
		s.run(contentForm, nothing)
		s.finish("stop", "")
		return s.done()
	}},
	{"several tokens in an event", func(s *script) *play {
		s.perDelta, s.opaque = 2+s.rng.IntN(6), true
		s.run(contentForm, nothing)
		s.finish("stop", "")
		return s.done()
	}},
	{"parts that think", func(s *script) *play {
		s.run(func(text string) string {
			return `"delta":{"content":[{"type":"thinking","thinking":[{"type":"text","text":"` + text + `"}]}]}`
		}, nothing)
		s.finish("stop", "")
		return s.done()
	}},
	{"sound", func(s *script) *play {
		s.run(func(text string) string { return `"delta":{"audio":{"id":"a","data":"` + text + `"}}` }, nothing)
		s.finish("stop", "")
		return s.done()
	}},
	{"Moonshot", func(s *script) *play {
		s.role()
		s.run(contentForm, nothing)
		s.add(chunk(0, `"delta":{},"finish_reason":"stop","usage":`+s.usageOf(s.tokens), ""))
		s.pieces[len(s.pieces)-1].usage = true
		return s.done()
	}},
	{"other names of counts", func(s *script) *play {
		s.usageOf = func(c int) string {
			return fmt.Sprintf(`{"input_tokens":"%d","output_tokens":"%d","prompt_tokens":0,"total_tokens":%d}`, s.prompt, c, s.prompt+c)
		}
		return s.plain()
	}},
	{"Gemini", func(s *script) *play {
		seal := strings.Repeat("CvcQAdHt", 40)
		s.run(func(text string) string {
			return `"delta":{"content":"` + text + `","extra_content":{"google":{"thought_signature":"` + seal + `"}}}`
		}, nothing)
		s.finish("stop", `,"usage":`+s.usageOf(s.tokens))
		s.pieces[len(s.pieces)-1].usage = true
		return s.done()
	}},
	{"Azure", func(s *script) *play {
		s.add(chunk(0, `"delta":{"role":"assistant","context":{"citations":[{"content":"`+strings.Repeat("found pages ", 99)+`"}]}},"finish_reason":null`, ""))
		return s.plain()
	}},
	{"pages of tomorrow", func(s *script) *play {
		s.noisy = true
		s.add(chunk(0, `"delta":{"role":"assistant","pages":[{"body":"`+strings.Repeat("found pages ", 99)+`"}]},"finish_reason":null`, ""))
		return s.plain()
	}},
	{"constants in empty chunks", func(s *script) *play {
		s.noisy = true
		beat := chunk(0, [...]string{`"delta":{"content":"","phase":"thinking"}`, `"delta":{"content":""},"phase":"thinking"`}[s.rng.IntN(2)]+`,"finish_reason":null`, "")
		if s.rng.IntN(2) == 0 {
			beat = chunk(0, `"delta":{"content":""},"finish_reason":null`, `,"note":"AI generated"`)
		}
		return rewritten(s.plain(), func(raw string) string { return beat + raw })
	}},
	{"runs of blanks", func(s *script) *play { s.blank = true; return s.plain() }},
	{"MiniMax", func(s *script) *play {
		s.run(contentForm, func(int) string {
			return `,"base_resp":{"status_code":0,"status_msg":""},"error":{"code":0,"message":""}`
		})
		s.finish("stop", `,"base_resp":{"status_code":0,"status_msg":"success"}`)
		s.total()
		return s.done()
	}},
	{"members of tomorrow", func(s *script) *play {
		s.run(func(text string) string { return `"delta":{"inner":{"words":["` + text + `"]}}` }, nothing)
		s.finish("stop", "")
		return s.done()
	}},
}

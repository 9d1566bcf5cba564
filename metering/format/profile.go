package format

import "slices"

// Engine names a kind of inference server.
type Engine string

// The engines that are known. An engine that nobody named and that no probe
// recognised is EngineGeneric.
const (
	EngineVLLM     Engine = "vllm"
	EngineSGLang   Engine = "sglang"
	EngineLlamaCpp Engine = "llamacpp"
	EngineOllama   Engine = "ollama"
	EngineTGI      Engine = "tgi"
	EngineTRTLLM   Engine = "trtllm"
	EngineOpenAI   Engine = "openai"
	EngineGeneric  Engine = "generic"
)

// The names of the completion cap in the OpenAI chat API.
const (
	CapTokens           = "max_tokens"
	CapCompletionTokens = "max_completion_tokens"
)

// Profile is what one backend is known to do with a chat request. What is not
// known has the value that loses nobody's money: a cap under every name, no
// tokenizer, no running usage, no belief that it stops by itself.
//
// The facts are those of the engines' sources: vLLM, SGLang and TensorRT-LLM of
// August 2026, llama.cpp of September 2026, Ollama 0.33, TGI 3.3.7.
type Profile struct {
	Engine Engine `json:"engine"`
	// Caps are the names under which the backend is told the cap, in tokens per
	// sequence. All are written, with the same number; every other name of the
	// cap is removed. Never empty.
	Caps []string `json:"caps"`
	// Counting is how the backend counts tokens without generating any.
	Counting Counting `json:"counting,omitempty"`
	// IncludeUsage: stream_options.include_usage is understood.
	IncludeUsage bool `json:"include_usage"`
	// ContinuousUsage: stream_options.continuous_usage_stats is understood.
	ContinuousUsage bool `json:"continuous_usage"`
	// UsagePerSequence: with n above 1 a stream has a usage chunk for each
	// completion, and the usage of a unary answer speaks of one completion.
	UsagePerSequence bool `json:"usage_per_sequence"`
	// OneCompletion: it makes one completion, whatever n says.
	OneCompletion bool `json:"one_completion"`
	// StopsUnary: it stops generating when the caller of a unary request hangs
	// up. Each engine here stops a stream.
	StopsUnary bool `json:"stops_unary"`
	// RunningTimings: timings_per_token reports the tokens so far in each chunk.
	RunningTimings bool `json:"running_timings"`
	// Streams: a stream holds all that the document of the same request would, so
	// that the gateway asks for a stream also where the client waits for a document.
	Streams bool `json:"streams"`
	// StreamsTools: also where the model calls tools. The parsers that vLLM, SGLang
	// and TensorRT-LLM use for streams are others than those for documents.
	StreamsTools bool `json:"streams_tools"`
	// HealthPath answers GET with a 2xx while the server can serve.
	HealthPath string `json:"health_path"`
	// MetricsPath shows the server's own load in Prometheus' format. Some engines have
	// it only if they are started so. Empty: the engine has none.
	MetricsPath string `json:"metrics_path,omitempty"`
}

// profiles is the table of what is known, one row per engine.
var profiles = [...]Profile{
	{Engine: EngineVLLM, Caps: []string{CapTokens}, Counting: CountVLLM,
		IncludeUsage: true, ContinuousUsage: true, StopsUnary: true, Streams: true, HealthPath: "/health", MetricsPath: "/metrics"},
	{Engine: EngineSGLang, Caps: []string{CapTokens}, Counting: CountSGLang,
		IncludeUsage: true, ContinuousUsage: true, StopsUnary: true, Streams: true, HealthPath: "/health", MetricsPath: "/metrics"},
	{Engine: EngineLlamaCpp, Caps: []string{CapTokens}, Counting: CountLlamaCpp,
		IncludeUsage: true, UsagePerSequence: true, StopsUnary: true, RunningTimings: true, Streams: true, StreamsTools: true,
		HealthPath: "/health", MetricsPath: "/metrics"},
	{Engine: EngineOllama, Caps: []string{CapTokens}, Counting: CountNone,
		IncludeUsage: true, OneCompletion: true, StopsUnary: true, Streams: true, StreamsTools: true, HealthPath: "/api/version"},
	{Engine: EngineTGI, Caps: []string{CapTokens}, Counting: CountTGI,
		IncludeUsage: true, OneCompletion: true, HealthPath: "/health", MetricsPath: "/metrics"},
	{Engine: EngineTRTLLM, Caps: []string{CapTokens}, Counting: CountTRTLLM,
		IncludeUsage: true, ContinuousUsage: true, StopsUnary: true, Streams: true, HealthPath: "/health", MetricsPath: "/prometheus/metrics"},
	{Engine: EngineOpenAI, Caps: []string{CapCompletionTokens}, Counting: CountNone,
		IncludeUsage: true, Streams: true, StreamsTools: true, HealthPath: "/v1/models"},
	// A server that knows one of the two names ignores the other one, so only
	// both together bound what an unknown server generates. One that refuses the
	// pair says so with a 400, which costs nobody anything.
	{Engine: EngineGeneric, Caps: []string{CapTokens, CapCompletionTokens}, Counting: CountNone,
		IncludeUsage: true, HealthPath: "/health"},
}

// Engines lists the engines that are known, EngineGeneric last.
func Engines() []Engine {
	names := make([]Engine, len(profiles))
	for i := range profiles {
		names[i] = profiles[i].Engine
	}
	return names
}

// ProfileOf is what is known of an engine; of one that is not listed, what
// holds for EngineGeneric.
func ProfileOf(e Engine) Profile {
	for _, p := range profiles {
		if p.Engine == e {
			p.Caps = slices.Clone(p.Caps)
			return p
		}
	}
	return ProfileOf(EngineGeneric)
}

// AwaitsUnary reports whether the answer to a caller that hung up is awaited and
// charged as reported, because the engine is known to generate it all the same. Of
// an engine that is not known, the request is cancelled.
func (p Profile) AwaitsUnary() bool { return !p.StopsUnary && p.Engine != EngineGeneric }

// TruncatesPrompts reports whether the engine is known to read no more tokens of each
// prompt than truncate_prompt_tokens says. Other engines ignore the field and read all.
func (p Profile) TruncatesPrompts() bool { return p.Engine == EngineVLLM || p.Engine == EngineTRTLLM }

// Setting is what a backend's owner says of it. What is said stands above what
// is known of the engine.
type Setting struct {
	Engine          Engine // empty: the owner does not know; it is probed
	Tokenize        *bool  // it counts tokens; nil: as the engine does
	ContinuousUsage *bool  // it understands continuous_usage_stats; nil: as the engine does
	CapField        string // the only name by which it takes the cap; empty: as the engine does
}

// Profile is the profile of a backend with this setting, of which a probe
// found that it is the engine found. An engine that the owner named stands
// above it.
func (s Setting) Profile(found Engine) Profile {
	if s.Engine != "" {
		found = s.Engine
	}
	p := ProfileOf(found)
	switch {
	case s.Tokenize == nil:
	case !*s.Tokenize:
		p.Counting = CountNone
	case p.Counting == CountNone:
		p.Counting = CountVLLM // the way that most servers with POST /tokenize have taken over
	}
	if s.ContinuousUsage != nil {
		p.ContinuousUsage = *s.ContinuousUsage
	}
	if s.CapField != "" {
		p.Caps = []string{s.CapField}
	}
	return p
}

// Counting names a way to count tokens without generating.
type Counting string

// The ways to count. They differ in path, body and answer.
const (
	CountNone     Counting = ""
	CountVLLM     Counting = "vllm"     // POST /tokenize: messages, or a prompt
	CountSGLang   Counting = "sglang"   // POST /tokenize: a text
	CountLlamaCpp Counting = "llamacpp" // POST /v1/chat/completions/input_tokens; POST /tokenize: a text
	CountTGI      Counting = "tgi"      // POST /chat_tokenize; POST /tokenize: a text
	CountTRTLLM   Counting = "trtllm"   // POST /_internal/tokenize: a text
)

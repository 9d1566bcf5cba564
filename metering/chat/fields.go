package chat

import "unicode"

// kind says what a top-level member of a request means for its cost.
type kind uint8

const (
	kindUnknown    kind = iota // may cost anything: the prompt is bounded by the context length
	kindHarmless               // steers sampling or is only stored: never part of a prompt
	kindModel                  //
	kindMessages               //
	kindStream                 //
	kindOptions                // stream_options
	kindCap                    // completion tokens per sequence, by all of its names
	kindSequences              // how many completions are generated
	kindRendered               // JSON that templates write into the prompt
	kindTools                  // the same, and a tool may be the backend's own
	kindScalars                // arguments of a template: bounded when they are plain values
	kindModalities             // kinds of output: only text is bounded by the cap
	kindBeam                   // beam search: reads the prompt once per beam
	kindHeavy                  // reads more than the prompt, per sequence
	kindRefused                // hides parameters, the cap among them, where this package does not look
)

// kindOf is the kind of the field named exactly key. The names are those of
// the OpenAI API and of the servers that speak it: vLLM, SGLang, llama.cpp,
// Ollama, TGI. A name that is not here costs its sender a hold of the whole
// context length, so adding one is safe only when it cannot lengthen a prompt.
func kindOf(key string) kind {
	switch key {
	case "model":
		return kindModel
	case "messages":
		return kindMessages
	case "stream":
		return kindStream
	case "stream_options":
		return kindOptions
	case capTokens, capCompletionTokens, "max_new_tokens", "n_predict", "num_predict", "max_output_tokens", "max_gen_len", "max_length":
		return kindCap
	case "n", "best_of", "num_beams", "beam_width", "num_return_sequences":
		return kindSequences
	case "functions", "function_call", "tool_choice", "response_format",
		"guided_json", "guided_regex", "guided_choice", "guided_grammar", "structured_outputs",
		"regex", "ebnf", "grammar", "json_schema", "format":
		return kindRendered
	case "tools":
		return kindTools
	case "chat_template_kwargs", "reasoning", "thinking":
		return kindScalars
	case "modalities":
		return kindModalities
	case "use_beam_search":
		return kindBeam
	case "previous_response_id", "conversation", "prompt", "audio", "web_search_options", "prediction", "session_params":
		return kindHeavy
	case "options", "parameters", "sampling_params", "extra_body", "generation_config", "nvext":
		return kindRefused
	case "temperature", "top_p", "top_k", "top_a", "min_p", "typical_p", "tfs_z", "seed", "stop",
		"presence_penalty", "frequency_penalty", "repetition_penalty", "repeat_penalty", "repeat_last_n", "length_penalty",
		"mirostat", "mirostat_tau", "mirostat_eta", "dynatemp_range", "dynatemp_exponent",
		"logit_bias", "logprobs", "top_logprobs", "user", "parallel_tool_calls", "metadata", "store", "verbosity",
		"reasoning_effort", "include_reasoning", "separate_reasoning", "stream_reasoning", "thinking_token_budget", "think",
		"ignore_eos", "min_tokens", "skip_special_tokens", "spaces_between_special_tokens", "no_stop_trim",
		"stop_token_ids", "include_stop_str_in_output", "bad_words", "allowed_token_ids", "early_stopping",
		"add_generation_prompt", "continue_final_message", "add_special_tokens", "truncate_prompt_tokens", "truncation_side",
		"cache_prompt", "cache_salt", "prompt_cache_key", "safety_identifier", "service_tier", "request_id", "rid":
		return kindHarmless
	}
	return kindUnknown
}

// foldsToKnown reports whether key is no known field, but would be one for a
// backend that ignores case, as Go's encoding/json does.
func foldsToKnown(key string) bool {
	plain := true
	for i := range len(key) {
		if c := key[i]; c >= 0x80 || (c >= 'A' && c <= 'Z') {
			plain = false
			break
		}
	}
	if plain {
		return false
	}
	folded := []rune(key)
	for i, r := range folded {
		for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
			if (f >= 'a' && f <= 'z') || f == '_' {
				folded[i] = f
			}
		}
	}
	return kindOf(string(folded)) != kindUnknown
}

package openai

import (
	"unicode"

	"sluice.example/sluice/metering/format"
)

// kind says what a top-level member of a request means for its cost, and
// whether a backend gets it.
type kind uint8

const (
	kindUnknown    kind = iota // refused, unless the owner allows it
	kindHarmless               // steers sampling or names the caller: never part of a prompt
	kindSwitch                 // a word or number that a template may write once: short
	kindDropped                // never sent: it would choose a place, a priority, an id, or the form of an answer
	kindForbidden              // refused, and no owner can allow it: state, addresses, prompts of another form
	kindRisky                  // refused, unless the owner allows it: it can lengthen a prompt or an answer
	kindModel                  //
	kindMessages               //
	kindStream                 //
	kindOptions                // stream_options
	kindCap                    // completion tokens per sequence, by all of its names
	kindFloor                  // fewest completion tokens: never above the cap
	kindSequences              // how many completions are generated, by all of its names
	kindBeams                  // completions that are generated and thrown away: none
	kindRendered               // JSON that templates write into the prompt, or a grammar made of it
	kindTools                  // the same, and a tool may be the backend's own
	kindScalars                // arguments of a template: bounded when they are plain values
	kindModalities             // kinds of output: only text is bounded by the cap
	kindPrompt                 // of completions: texts or tokens
	kindSuffix                 // of completions: the text behind the one that is generated
	kindEcho                   // of completions: the prompt comes back within the answer
	kindElsewhere              // what another path takes in place of a prompt
)

// kindOf is the kind of the field named exactly key. The names are those of the
// OpenAI API, of the servers that speak it (vLLM, SGLang, TensorRT-LLM,
// llama.cpp, Ollama, TGI), and of what their clients send by default. A name
// that is not here is refused, so adding one as harmless is safe only when it
// cannot lengthen a prompt, an answer or a backend's work.
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
	case format.CapTokens, format.CapCompletionTokens, "max_new_tokens", "n_predict", "num_predict", "max_output_tokens",
		"max_gen_len", "max_length":
		return kindCap
	case "min_tokens", "min_new_tokens":
		return kindFloor
	case "n", "n_cmpl", "num_return_sequences":
		return kindSequences
	case "best_of", "num_beams", "beam_width", "use_beam_search":
		return kindBeams
	case "tools":
		return kindTools
	case "modalities":
		return kindModalities
	case "chat_template_kwargs", "reasoning", "thinking":
		return kindScalars
	}
	switch {
	case isRendered(key):
		return kindRendered
	case isHarmless(key):
		return kindHarmless
	case isSwitch(key):
		return kindSwitch
	case isDropped(key):
		return kindDropped
	case isForbidden(key):
		return kindForbidden
	case isRisky(key):
		return kindRisky
	}
	return kindUnknown
}

func isRendered(key string) bool {
	switch key {
	case "functions", "function_call", "tool_choice", "response_format", "documents", "guided_json",
		"guided_regex", "guided_choice", "guided_grammar", "guided_decoding_backend",
		"guided_whitespace_pattern", "structured_outputs", "regex", "ebnf", "grammar", "grammar_lazy",
		"grammar_triggers", "json_schema", "format", "structural_tag":
		return true
	}
	return false
}

func isHarmless(key string) bool {
	switch key {
	case "temperature", "top_p", "top_p_min", "top_k", "top_a", "min_p", "typical_p", "typical", "tfs", "tfs_z",
		"top_n_sigma", "nsigma", "epsilon_cutoff", "eta_cutoff", "xtc_probability", "xtc_threshold",
		"smoothing_factor", "smoothing_curve", "temperature_last", "min_temp", "max_temp", "dynatemp_low",
		"dynatemp_high", "dynatemp_range", "dynatemp_exponent", "dynamic_temperature", "mirostat",
		"mirostat_mode", "mirostat_tau", "mirostat_eta", "adaptive_target", "adaptive_decay", "samplers",
		"sampler_order", "sampler_seed", "seed", "random_seed", "do_sample", "min_keep", "watermark", "watermarking", "stop",
		"stop_token_ids", "stop_regex", "include_stop_str_in_output", "no_stop_trim", "bad_words",
		"early_stopping", "presence_penalty", "frequency_penalty", "repetition_penalty", "repeat_penalty",
		"repeat_last_n", "length_penalty", "rep_pen", "rep_pen_range", "rep_pen_slope",
		"repetition_penalty_range", "repetition_decay", "penalize_nl", "no_repeat_ngram_size", "dry_multiplier",
		"dry_base", "dry_allowed_length", "dry_penalty_last_n", "dry_sequence_breakers", "repetition_detection",
		"logit_bias", "logprobs", "top_logprobs", "logprob_token_ids", "allowed_token_ids", "n_probs",
		"post_sampling_probs", "ban_eos_token", "ignore_eos", "skip_special_tokens",
		"spaces_between_special_tokens", "detokenize", "add_generation_prompt", "continue_final_message",
		"add_special_tokens", "truncate_prompt_tokens", "truncation_side", "prompt_ignore_length",
		"thinking_token_budget", "thinking_budget_tokens", "thinking_budget", "reasoning_budget", "thinking_forced_open",
		"parallel_tool_calls", "parse_tool_calls", "tool_stream", "user", "safety_identifier", "prompt_cache_key",
		"cache_prompt", "cache_salt", "extra_key":
		return true
	}
	return false
}

func isSwitch(key string) bool {
	switch key {
	case "reasoning_effort", "verbosity", "think", "enable_thinking", "include_reasoning", "separate_reasoning",
		"stream_reasoning", "reasoning_format", "reasoning_history", "exclude_reasoning",
		"reasoning_in_content", "task":
		return true
	}
	return false
}

// isDropped names what is dropped in silence, because nothing that the client
// asked for is lost by it: requests are answered in the order that the gateway
// gives them, under ids that it gives them, by backends that it chooses.
func isDropped(key string) bool {
	switch key {
	case "request_id", "rid", "session_id", "chat_id", "conversation_id", "id_slot", "slot_id", "priority",
		"service_tier", "store", "metadata", "prompt_cache_retention", "prompt_cache_options", "keep_alive",
		"ttl", "num_ctx", "draft_model", "speculative", "provider", "providers", "models", "route", "router",
		"routing", "transforms", "plugins", "preset", "trace", "debug", "usage", "cache_control", "caching",
		"tags", "safe_prompt", "safety_settings", "prediction", "stream_interval", "agent_hierarchy",
		"timings_per_token", "return_progress", "sse_ping_interval", "verbose", "return_tokens",
		"return_meta_info", "moderation", "min_keep_alive", "t_max_predict_ms", "t_max_prompt_ms",
		"response_fields", "weight", "client_metadata", "user_id":
		return true
	}
	return false
}

// isForbidden names what makes an engine open connections or files, search the web,
// use state that others share, or read a prompt where this package does not look.
func isForbidden(key string) bool {
	switch key {
	case "kv_transfer_params", "ec_transfer_params", "bootstrap_host", "bootstrap_port", "bootstrap_room",
		"bootstrap_pair_key", "data_parallel_rank", "routed_dp_rank", "disagg_prefill_dp_rank",
		"disaggregated_params", "conversation_params", "lora_path", "lora", "lora_request", "adapter_id",
		"vllm_xargs", "custom_params", "custom_logit_processor", "logits_processors", "session_params",
		"ngram_corpus_id", "previous_response_id", "conversation", "background", "web_search_options", "prompt",
		"prompts", "input", "input_ids", "input_embeds", "prompt_embeds", "prompt_token_ids",
		"prompt_token_ids_b64", "image_data", "video_data", "audio_data", "image_url", "file_id", "file_ids",
		"multimodal_data", "return_hidden_states", "return_routed_experts", "routed_experts_prompt_start",
		"injected_chat_template_kwargs", "options", "parameters", "sampling_params", "extra_body",
		"generation_config", "nvext", "enable_search", "search_options", "web_search", "search_parameters",
		"search_settings", "forced_search", "enable_code_interpreter", "deferred":
		return true
	}
	return false
}

func isRisky(key string) bool {
	switch key {
	case "chat_template", "echo", "audio", "prompt_logprobs", "return_token_ids", "return_tokens_as_token_ids",
		"return_prompt_text", "mm_processor_kwargs", "media_io_kwargs", "images_config", "max_dynamic_patch",
		"min_dynamic_patch", "use_audio_in_video", "negative_prompt", "guidance_scale", "cfg_scale":
		return true
	}
	return false
}

// maxSwitch bounds a kindSwitch in bytes. The longest known is about 20.
const maxSwitch = 64

// strictOpenAI and strictTRTLLM are the harmless fields of the two engines that
// refuse every field they do not know; what is not here is dropped for them.
func strictOpenAI(key string) bool {
	switch key {
	case "temperature", "top_p", "seed", "stop", "presence_penalty", "frequency_penalty", "logit_bias",
		"logprobs", "top_logprobs", "user", "safety_identifier", "prompt_cache_key", "parallel_tool_calls",
		"reasoning_effort", "verbosity":
		return true
	}
	return false
}

func strictTRTLLM(key string) bool {
	switch key {
	case "temperature", "top_p", "top_p_min", "top_k", "min_p", "seed", "stop", "stop_token_ids",
		"include_stop_str_in_output", "early_stopping", "presence_penalty", "frequency_penalty",
		"repetition_penalty", "length_penalty", "logit_bias", "logprobs", "top_logprobs", "ignore_eos",
		"min_tokens", "skip_special_tokens", "spaces_between_special_tokens", "truncate_prompt_tokens",
		"prompt_ignore_length", "add_generation_prompt", "add_special_tokens", "user", "reasoning_effort",
		"thinking_token_budget", "parallel_tool_calls", "cache_salt":
		return true
	}
	return false
}

// knows reports whether an engine takes the field key of a kind that may be
// dropped for it.
func knows(p *format.Profile, k kind, key string) bool {
	if k != kindHarmless && k != kindSwitch && k != kindFloor {
		return true
	}
	switch p.Engine {
	case format.EngineOpenAI:
		return strictOpenAI(key)
	case format.EngineTRTLLM:
		return strictTRTLLM(key)
	}
	return true
}

// foldsToKnown reports whether key is no known field, but would be one for a
// backend that ignores case, as Go's encoding/json does. kindOf is the API's.
func foldsToKnown(key string, kindOf func(string) kind) bool {
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

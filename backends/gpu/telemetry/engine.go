package telemetry

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// ErrNoEngine reports a metrics page that holds no metric of a known engine.
var ErrNoEngine = errors.New("the metrics page has none of the metrics of vLLM, SGLang, TensorRT-LLM, TGI or llama.cpp: is it the engine's, and are its metrics enabled?")

// dialect is how one engine names each metric that is needed, newest name first. A name may require one
// label, as in name{label=value}.
type dialect struct {
	kind                 string
	running, waiting, kv []string
}

// dialects returns the known engines. The sources are the engines' own documentation of their metrics.
// Ollama has no metrics, so its load is only the gateway's own count.
func dialects() []dialect {
	return []dialect{
		// The engine renamed gpu_cache_usage_perc to kv_cache_usage_perc. Both are 0..1.
		{"vllm", []string{"vllm:num_requests_running"}, []string{"vllm:num_requests_waiting"}, []string{"vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"}},
		{"sglang", []string{"sglang:num_running_reqs"}, []string{"sglang:num_queue_reqs"}, []string{"sglang:token_usage"}},
		// This is trtllm-serve, whose page is at /prometheus/metrics.
		{"tensorrt-llm", []string{"trtllm_num_requests_running"}, []string{"trtllm_num_requests_waiting"}, []string{"trtllm_kv_cache_utilization"}},
		// This is TensorRT-LLM behind Triton.
		{"triton", []string{"nv_trt_llm_request_metrics{request_type=scheduled}", "nv_trt_llm_request_metrics{request_type=active}"},
			[]string{"nv_trt_llm_request_metrics{request_type=waiting}"}, []string{"nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=fraction}"}},
		{"tgi", []string{"tgi_batch_current_size"}, []string{"tgi_queue_size"}, nil},
		// Only older builds report the KV cache.
		{"llama.cpp", []string{"llamacpp:requests_processing"}, []string{"llamacpp:requests_deferred"}, []string{"llamacpp:kv_cache_usage_ratio"}},
	}
}

// EngineSampler reads an inference engine's own metrics.
type EngineSampler struct {
	scraper
	dialects []dialect
}

// NewEngineSampler returns a sampler that reads the metrics page of vLLM, SGLang, TensorRT-LLM
// (trtllm-serve, or behind Triton), TGI or llama.cpp. The sampler recognizes the engine by the names of
// its metrics. A URL without a path means /metrics, although trtllm-serve has its page at
// /prometheus/metrics. The client may add a key to each request. A nil client means an http.Client
// without settings. If a metric has several series, for example of data-parallel ranks, the sampler
// adds them up. Of the KV cache it takes the fullest.
func NewEngineSampler(u *url.URL, client *http.Client) *EngineSampler {
	s := &EngineSampler{dialects: dialects()}
	wanted := map[string]bool{}
	for _, d := range s.dialects {
		for _, list := range [][]string{d.running, d.waiting, d.kv} {
			for _, metric := range list {
				for _, name := range spellings(metric) {
					wanted[name] = true
				}
			}
		}
	}
	s.scraper = newScraper(u, client, wanted)
	return s
}

// spellings returns the names under which a metric may be found. Proxies write an underscore for the
// colon or the other way round, and Ray adds a prefix.
func spellings(metric string) []string {
	name, _, _ := strings.Cut(metric, "{")
	names := []string{name}
	if prefix, rest, ok := strings.Cut(name, ":"); ok {
		names = append(names, prefix+"_"+rest, "ray_"+prefix+"_"+rest)
	} else if rest, ok := strings.CutPrefix(name, "trtllm_"); ok {
		names = append(names, "trtllm:"+rest)
	}
	return names
}

// Sample implements Sampler.
func (s *EngineSampler) Sample(ctx context.Context) (Reading, error) {
	page, err := s.scrape(ctx)
	if err != nil {
		return Reading{}, err
	}
	return s.read(page)
}

func (s *EngineSampler) read(page *scraped) (Reading, error) {
	for _, d := range s.dialects {
		e := Engine{Kind: d.kind}
		var r Reading
		var known [3]bool
		e.Running, known[0] = r.gather("running", page, d.running, sum)
		e.Waiting, known[1] = r.gather("waiting", page, d.waiting, sum)
		e.KV, known[2] = r.gather("kv_cache", page, d.kv, fullest)
		if known != [3]bool{} {
			r.Engine = &e
			return r, nil
		}
	}
	return Reading{}, page.without(ErrNoEngine)
}

func sum(a, b float64) float64     { return a + b }
func fullest(a, b float64) float64 { return max(a, b) }

// gather joins the series of the first of the metrics that the page has. One impossible series makes
// the result unusable, because the other series alone would tell too little.
func (r *Reading) gather(field string, page *scraped, metrics []string, join func(a, b float64) float64) (value float64, there bool) {
	for _, metric := range metrics {
		if page.brokenIn(metric) {
			r.Refused = append(r.Refused, field)
			return math.NaN(), false
		}
		for _, s := range seriesOf(page.series, metric) {
			if !(s.value >= 0) || math.IsInf(s.value, 1) {
				r.Refused = append(r.Refused, field)
				return math.NaN(), true
			}
			value, there = join(value, s.value), true
		}
		if there {
			return value, true
		}
	}
	return math.NaN(), false
}

// brokenIn says whether the page has a series of the metric that cannot be read.
func (p *scraped) brokenIn(metric string) bool {
	return slices.ContainsFunc(spellings(metric), func(name string) bool { return p.broken[name] > 0 })
}

// seriesOf returns those series of a metric that each count requests of their own.
func seriesOf(page map[string][]sample, metric string) []sample {
	_, label, _ := strings.Cut(strings.TrimSuffix(metric, "}"), "{")
	want, value, _ := strings.Cut(label, "=")
	var all []sample
	for _, name := range spellings(metric) {
		for _, s := range page[name] {
			if want == "" || s.labels.get(want) == value {
				all = append(all, s)
			}
		}
	}
	return withoutRepeats(all)
}

// withoutRepeats leaves out series that repeat what other series say. SGLang has a series for each
// priority beside the series for all priorities. Its tensor-, pipeline- and expert-parallel ranks may
// each report the same requests, so of these series the largest number counts. Data-parallel ranks have
// requests of their own.
func withoutRepeats(all []sample) []sample {
	if whole := slices.DeleteFunc(slices.Clone(all), func(s sample) bool { return s.labels.get("priority") != "" }); len(whole) > 0 {
		all = whole
	}
	if len(all) < 2 {
		return all
	}
	groups := map[string]int{}
	var kept []sample
	for _, s := range all {
		own := s.labels.all()
		for _, rank := range []string{"tp_rank", "pp_rank", "moe_ep_rank"} {
			delete(own, rank)
		}
		key := fmt.Sprint(own) // fmt prints maps in the order of their keys
		if i, ok := groups[key]; !ok {
			groups[key] = len(kept)
			kept = append(kept, s)
		} else if !(s.value <= kept[i].value) { // so that a NaN is kept
			kept[i].value = s.value
		}
	}
	return kept
}

package openai_test

import (
	"errors"
	"strings"
	"testing"

	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/openai"
)

// ask is a small request with more fields behind it.
func ask(fields string) []byte {
	if fields != "" {
		fields = "," + fields
	}
	return []byte(`{"model":"m","messages":[{"role":"user","content":"Say hello."}]` + fields + `}`)
}

func parse(t *testing.T, body []byte) *openai.Request {
	t.Helper()
	return parseFor(t, body, format.Policy{AllowFields: []string{"chat_template"}})
}

// parseFor parses a request for a model whose owner allows what p says.
func parseFor(t *testing.T, body []byte, p format.Policy) *openai.Request {
	t.Helper()
	r, err := openai.ParseFor(body, func(string) *format.Policy { return &p })
	if err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return r
}

func TestParse(t *testing.T) {
	body := ask(`"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true},"temperature":0.5`)
	r := parse(t, body)
	if r.Model() != "m" || !r.Stream() || !r.WantsUsage() || !r.WantsContinuousUsage() || r.Messages() != 1 {
		t.Errorf("read %q %v %v %v %d", r.Model(), r.Stream(), r.WantsUsage(), r.WantsContinuousUsage(), r.Messages())
	}
	if got := r.PromptBytes(); got != int64(len("user")+len("Say hello."))+16 {
		t.Errorf("%d bytes of prompt", got)
	}
	r = parse(t, ask(`"stream":null,"stream_options":null,"n":null,"max_tokens":null,"tools":null,"audio":null`))
	if r.Stream() || r.WantsUsage() || r.WantsContinuousUsage() {
		t.Error("null means absent")
	}
	if r = parse(t, []byte(`{"mod\u0065l":"\u006d","messages":[{}]}`)); r.Model() != "m" {
		t.Errorf("model %q", r.Model())
	}
}

func TestParseRefuses(t *testing.T) {
	many := make([]string, 130)
	for i := range many {
		many[i] = `"f` + strings.Repeat("x", i) + `":1`
	}
	for name, c := range map[string]struct{ body, says string }{
		"nothing":                  {``, "empty"},
		"no object":                {`[1]`, "not a JSON object"},
		"data behind":              {string(ask("")) + `{}`, "after the JSON object"},
		"invalid UTF-8":            {string(ask("\"x\":\"\xff\"")), "UTF-8"},
		"broken JSON":              {`{"model":"m",`, "not valid JSON"},
		"too deep":                 {string(ask(`"metadata":` + strings.Repeat("[", 200) + strings.Repeat("]", 200))), "nested deeper"},
		"no model":                 {`{"messages":[{"role":"user","content":"x"}]}`, "model is missing"},
		"empty model":              {string(ask(`"x":1`))[:9] + `"","messages":[{}]}`, "model must be"},
		"null model":               {`{"model":null,"messages":[{}]}`, "model must be"},
		"model is a number":        {`{"model":1,"messages":[{}]}`, "model must be"},
		"no messages":              {`{"model":"m"}`, "messages is missing"},
		"empty messages":           {`{"model":"m","messages":[]}`, "messages is missing"},
		"null messages":            {`{"model":"m","messages":null}`, "messages must be"},
		"messages is text":         {`{"model":"m","messages":"x"}`, "messages must be"},
		"a message is text":        {`{"model":"m","messages":["x"]}`, "messages[0] must be"},
		"duplicate model":          {string(ask(`"model":"cheap"`)), "given twice"},
		"duplicate, escaped":       {string(ask(`"m\u006fdel":"cheap"`)), "given twice"},
		"duplicate of any kind":    {string(ask(`"seed":1,"seed":1`)), "given twice"},
		"unknown duplicate":        {string(ask(`"zzz":1,"zzz":2`)), "given twice"},
		"another case":             {string(ask(`"Max_Tokens":1`)), "lower case"},
		"another case of model":    {string(ask(`"MODEL":"cheap"`)), "lower case"},
		"a letter that folds to s": {string(ask(`"ſtream":true`)), "lower case"},
		"the kelvin sign":          {string(ask(`"max_to` + "\u212a" + `ens":1`)), "lower case"},
		"too many fields":          {string(ask(strings.Join(many, ","))), "fields"},
		"max_tokens is text":       {string(ask(`"max_tokens":"5"`)), "max_tokens must be a whole number"},
		"max_tokens 0":             {string(ask(`"max_tokens":0`)), "max_tokens must be a whole number"},
		"max_tokens -2":            {string(ask(`"max_tokens":-2`)), "max_tokens must be a whole number"},
		"max_tokens 4.5":           {string(ask(`"max_tokens":4.5`)), "max_tokens must be a whole number"},
		"max_tokens true":          {string(ask(`"max_tokens":true`)), "max_tokens must be a whole number"},
		"max_completion_tokens":    {string(ask(`"max_completion_tokens":[5]`)), "max_completion_tokens must be a whole number"},
		"n is text":                {string(ask(`"n":"4"`)), "n must be a whole number"},
		"n is 0":                   {string(ask(`"n":0`)), "n must be a whole number"},
		"n is 1.5":                 {string(ask(`"n":1.5`)), "n must be a whole number"},
		"best_of is true":          {string(ask(`"best_of":true`)), "best_of must be a whole number"},
		"stream is text":           {string(ask(`"stream":"true"`)), "stream must be true or false"},
		"stream is 1":              {string(ask(`"stream":1`)), "stream must be true or false"},
		"stream_options is true":   {string(ask(`"stream_options":true`)), "stream_options must be an object"},
		"include_usage is text":    {string(ask(`"stream_options":{"include_usage":"yes"}`)), "include_usage must be"},
		"continuous is a number":   {string(ask(`"stream_options":{"continuous_usage_stats":1}`)), "continuous_usage_stats must be"},
		"Include_Usage":            {string(ask(`"stream_options":{"Include_Usage":true}`)), "lower case"},
		"use_beam_search is 1":     {string(ask(`"use_beam_search":1`)), "beam search generates"},
		"hidden parameters":        {string(ask(`"options":{"num_predict":100000}`)), "cannot be used here"},
	} {
		_, err := openai.Parse([]byte(c.body))
		var refused *format.RequestError
		if !errors.As(err, &refused) || !strings.Contains(refused.Reason, c.says) {
			t.Errorf("%s: %v; want a *RequestError saying %q", name, err, c.says)
		}
	}
}

func TestErrorsDoNotRepeatLongInput(t *testing.T) {
	_, err := openai.Parse(ask(`"` + strings.Repeat("A", 100_000) + `":1,"` + strings.Repeat("A", 100_000) + `":1`))
	if err == nil || len(err.Error()) > 300 {
		t.Errorf("error of %d bytes", len(err.Error()))
	}
}

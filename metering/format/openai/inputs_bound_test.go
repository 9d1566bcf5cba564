package openai

import (
	"strings"
	"testing"

	"golang.org/x/text/unicode/norm"

	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/rawjson"
)

// Tokenizers may normalise a text before they cut it into tokens, and a text may then
// have more bytes than it came with. Each API holds what any form of normalisation makes
// of it, and a chat holds the same for the same text.
func TestTextsAreBoundedAsTheyAreNormalised(t *testing.T) {
	for name, text := range map[string]string{
		"plain":                       "The river and its banks.",
		"no character is decomposed":  "中文, déjà vu 😀",
		"form C is longer":            strings.Repeat("\u0958", 40),
		"form C is three times":       "notes " + strings.Repeat("\U0001D160", 40),
		"form KC is eleven times":     "a name " + strings.Repeat("\ufdfa", 40),
		"fractions and squared words": strings.Repeat("½ ㌖ ", 40),
	} {
		normal := int64(len(text))
		for _, form := range []norm.Form{norm.NFC, norm.NFKC} {
			normal = max(normal, int64(len(form.String(text))))
		}
		for _, quoted := range []string{string(rawjson.Quote(text)), escaped(text)} {
			bound := func(f format.Format, body string) int64 {
				r := parseInputs(t, f, body)
				b, err := r.Bound(format.Limits{MaxCompletion: 1})
				if err != nil {
					t.Fatal(err)
				}
				return b.Input
			}
			chat := bound(Chat, `{"model":"m","messages":[{"role":"user","content":`+quoted+`}]}`) -
				bound(Chat, `{"model":"m","messages":[{"role":"user","content":""}]}`)
			for api, got := range map[string]int64{
				"embeddings": bound(Embeddings, `{"model":"m","input":[`+quoted+`]}`) - embeddingsAPI.special,
				"rerank":     bound(Rerank, `{"model":"m","query":"","documents":[`+quoted+`]}`) - rerankAPI.special,
				"query":      bound(Rerank, `{"model":"m","query":`+quoted+`,"documents":[""]}`) - rerankAPI.special,
				"score":      bound(Score, `{"model":"m","text_1":"","text_2":`+quoted+`}`) - scoreAPI.special,
				"instruction": bound(Rerank, `{"model":"m","query":"","documents":[""],"instruction":`+quoted+`}`) -
					rerankAPI.special,
			} {
				if got < normal || got != chat {
					t.Errorf("%s, %s of %.40s: %d tokens are held, a chat holds %d, the longest form has %d bytes", name, api, quoted, got, chat, normal)
				}
			}
		}
		if r := parseInputs(t, Embeddings, `{"model":"m","input":`+string(rawjson.Quote(text))+`}`); r.PromptBytes() != int64(len(text)) {
			t.Errorf("%s: an estimate takes %d bytes for %d", name, r.PromptBytes(), len(text))
		}
	}
}

// So is a word that a template may write before each text.
func TestWordsBeforeTextsAreBoundedAsTheyAreNormalised(t *testing.T) {
	for word, want := range map[string]int64{"query": 7, `\ufdfa`: 8 + 30, "\ufdfa": 5 + 30} {
		r := parseInputs(t, Embeddings, `{"model":"m","input":"","input_type":"`+word+`"}`)
		if b, err := r.Bound(format.Limits{}); err != nil || b.Input != embeddingsAPI.special+prefixTokens+want {
			t.Errorf("%s: %+v %v", word, b, err)
		}
	}
}

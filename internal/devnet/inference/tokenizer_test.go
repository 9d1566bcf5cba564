package inference

import (
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func FuzzTokenizerRoundTrip(f *testing.F) {
	tok := fitTokenizer(corpus)
	for _, seed := range []string{"", " ", "  ", "The river", "\n\n ", "naïve café – 12 345", "\xff\xfe\x00", "<|user|>", "日本語", corpus[:300]} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		checkRoundTrip(t, tok, text)
	})
}

func checkRoundTrip(t interface {
	Helper()
	Fatalf(string, ...any)
}, tok *Tokenizer, text string) {
	t.Helper()
	ids := tok.Encode(text)
	if len(ids) > len(text) {
		t.Fatalf("%d tokens for %d bytes of %q", len(ids), len(text), text)
	}
	got, err := tok.Decode(ids)
	if err != nil || got != text {
		t.Fatalf("decode(encode(%q)) = %q, %v", text, got, err)
	}
	for _, id := range ids {
		if id >= len(tok.pieces)-len(specials()) {
			t.Fatalf("%q encodes to the special token %q", text, tok.pieces[id])
		}
	}
}

func TestTokenizerRoundTripProperty(t *testing.T) {
	tok := fitTokenizer(corpus)
	rapid.Check(t, func(t *rapid.T) {
		checkRoundTrip(t, tok, string(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")))
		checkRoundTrip(t, tok, rapid.String().Draw(t, "text"))
	})
}

func TestVocabulary(t *testing.T) {
	tok := fitTokenizer(corpus)
	for id, piece := range tok.pieces {
		switch {
		case piece == "":
			t.Errorf("token %d is empty", id)
		case id >= byteTokens && !utf8.ValidString(piece):
			t.Errorf("piece %q is not whole characters", piece)
		case id < len(tok.pieces)-len(specials()) && len(piece) > maxPieceBytes:
			t.Errorf("piece %q is too long", piece)
		}
	}
	if perToken := float64(len(corpus)) / float64(len(tok.Encode(corpus))); perToken < 3.2 || perToken > 4.8 {
		t.Errorf("%.2f bytes per token, want about 4", perToken)
	}
	if a, b := fitTokenizer(corpus), fitTokenizer(corpus); strings.Join(a.pieces, "\x00") != strings.Join(b.pieces, "\x00") {
		t.Error("two fits differ")
	}
	if _, err := tok.Decode([]int{len(tok.pieces)}); err == nil {
		t.Error("an unknown id was decoded")
	}
	if got := len(tok.Encode(strings.Repeat("\x01", 50))); got != 50 {
		t.Errorf("50 unusual bytes are %d tokens, want one each", got)
	}
}

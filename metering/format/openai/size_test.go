package openai

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
	"pgregory.net/rapid"

	"sluice.example/sluice/internal/lab/proc"
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/rawjson"
)

// floats are numbers as a client may write them and as Python writes them.
var floats = [][2]string{{"1e5", "100000.0"}, {"1E15", "1000000000000000.0"}, {"1e400", "Infinity"}, {"-1e-7", "-1e-07"}, {"0.1", "0.1"},
	{"-2.2250738585072014E-308", "-2.2250738585072014e-308"}, {"12", "12"}, {"-0.0", "-0.0"}, {"123456789012345678901234567890", "123456789012345678901234567890"}}

// drawJSON draws a value, compact as a client may send it, and as the
// template engines that write most would render it: indented by 4, ASCII
// only, guarded against HTML.
func drawJSON(t *rapid.T, depth int, indent string) (raw, written string) {
	kind := rapid.IntRange(0, 6).Draw(t, "kind")
	if depth == 0 {
		kind = min(kind, 3)
	}
	switch kind {
	case 0:
		f := rapid.SampledFrom(floats).Draw(t, "number")
		return f[0], f[1]
	case 1:
		word := rapid.SampledFrom([]string{"true", "false", "null"}).Draw(t, "word")
		return word, word
	case 2, 3:
		return drawString(t)
	}
	open, closing := "[", "]"
	if kind > 4 {
		open, closing = "{", "}"
	}
	raw, written = open, open
	inner := indent + "    "
	for i := range rapid.IntRange(0, 4).Draw(t, "members") {
		if i > 0 {
			raw, written = raw+",", written+", "
		}
		written += "\n" + inner
		if kind > 4 {
			k, w := drawString(t)
			raw, written = raw+k+":", written+w+": "
		}
		r, w := drawJSON(t, depth-1, inner)
		raw, written = raw+r, written+w
	}
	return raw + closing, written + "\n" + indent + closing
}

func drawString(t *rapid.T) (raw, written string) {
	s := rapid.StringOfN(rapid.RuneFrom([]rune("a<>&'\"\\/\n\té中😀\x7f\u2028 {[,:]}")), 0, 12, -1).Draw(t, "text")
	var b strings.Builder
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(s); err != nil {
		t.Fatal(err)
	}
	raw = strings.TrimSuffix(b.String(), "\n")
	raw = strings.ReplaceAll(raw, `\u2028`, "\u2028")
	guarded, _ := json.Marshal(s)
	for _, r := range string(guarded) {
		switch {
		case r == '\'':
			written += `\u0027`
		case r < 0x80:
			written += string(r)
		case r < 0x10000:
			written += fmt.Sprintf(`\u%04x`, r)
		default:
			written += `\ud83d\ude00`
		}
	}
	return raw, written
}

func TestRenderedIsAnUpperBound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		raw, written := drawJSON(t, 5, "")
		if got := rendered([]byte(raw)); got < int64(len(written)) {
			t.Fatalf("%s is bounded by %d bytes, rendered it has %d:\n%s", raw, got, len(written), written)
		}
	})
	if got := rendered([]byte(strings.Repeat("[", 100) + strings.Repeat("]", 100))); got < 4*100*99 {
		t.Errorf("deep lists are bounded by %d bytes", got)
	}
}

func TestRenderedTakesAnything(t *testing.T) {
	for _, v := range []string{``, `"`, `"\`, `]]]}`, `{"a`, `,,,`, `abc`, `"a"b"c`, "\xff", `{"a":"\`} {
		if rendered([]byte(v)) < 0 {
			t.Errorf("%q has a negative bound", v)
		}
	}
}

func TestArgumentsAreBoundedAsTheyAreRendered(t *testing.T) {
	deep := strings.Repeat("[", 60) + strings.Repeat("]", 60)
	body := `{"model":"m","messages":[{"role":"assistant","content":null,"tool_calls":[{"type":"function","function":{"name":"f","arguments":"` + deep + `"}}]}]}`
	r, err := Parse([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	b, err := r.Bound(format.Limits{MaxCompletion: 1})
	if err != nil || b.Input < 4*60*59 {
		t.Errorf("bound %d of %d bytes, %v", b.Input, len(body), err)
	}
}

// Every character, and every pair of characters that forms a new one: never longer in form
// C or KC than the bound, however it is written.
func TestSizesBoundNormalisation(t *testing.T) {
	check := func(text string) {
		t.Helper()
		normal := int64(max(len(norm.NFC.String(text)), len(norm.NFKC.String(text)), len(text)))
		for _, quoted := range []string{string(rawjson.Quote(text)), escaped(text)} {
			if got := sizeOf([]byte(quoted)); got.most < normal || got.bytes != int64(len(text)) {
				t.Fatalf("%s: %d bytes, bounded by %+v", quoted, normal, got)
			}
		}
	}
	step := rune(1)
	if proc.RaceDetector { // it slows this down twentyfold, and finds nothing in one goroutine
		step = 101
	}
	for r := rune(0x20); r <= utf8.MaxRune; r += step {
		if utf8.ValidRune(r) {
			check(string(r))
			check("a" + string(r) + "\u0323")
		}
	}
	const ordinary = "中文, déjà vu 😀 one\ntwo"
	if got := sizeOf(rawjson.Quote(ordinary)); got.most != int64(len(ordinary)) {
		t.Errorf("ordinary text is bounded by %d bytes", got.most)
	}
	if got := sizeOf([]byte("\"\xff\xc3\"")); got.most < 2 {
		t.Errorf("what is no UTF-8 is bounded by %d bytes", got.most)
	}
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.String().Draw(t, "text")
		if got := sizeOf(rawjson.Quote(text)).most; got < int64(len(norm.NFKC.String(text))) {
			t.Fatalf("%+q is bounded by %d bytes", text, got)
		}
	})
}

// escaped is a JSON string with an escape for each character.
func escaped(text string) string {
	var b strings.Builder
	for _, unit := range utf16.Encode([]rune(text)) {
		fmt.Fprintf(&b, `\u%04x`, unit)
	}
	return `"` + b.String() + `"`
}

func TestToolResultsAreBoundedAsJSONStrings(t *testing.T) {
	for role, want := range map[string]int64{"user": 6 + 4, "tool": 3*6 + 2 + 4 + 2} {
		r, err := Parse([]byte(`{"model":"m","messages":[{"role":"` + role + `","content":"ééé"}]}`))
		if err != nil {
			t.Fatal(err)
		}
		if b, err := r.Bound(format.Limits{MaxCompletion: 1}); err != nil || b.Input != want {
			t.Errorf("%s: bound %d, %v; want %d", role, b.Input, err, want)
		}
	}
}

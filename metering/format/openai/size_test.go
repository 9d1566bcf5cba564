package openai

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
	"pgregory.net/rapid"

	"sluice.example/sluice/metering/format"
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

// Every character, written as it is or escaped, and every pair of characters
// that forms a new one: never longer in form C than the bound.
func TestProseBytesBoundsNormalisation(t *testing.T) {
	check := func(text string) {
		t.Helper()
		normal := int64(max(len(norm.NFC.String(text)), len(text)))
		if got := proseBytes([]byte(text)); got < normal {
			t.Fatalf("%+q: %d bytes, bounded by %d", text, normal, got)
		}
	}
	for r := rune(0x20); r <= utf8.MaxRune; r++ {
		if !utf8.ValidRune(r) {
			continue
		}
		check(string(r))
		check("a" + string(r) + "\u0323")
		escaped := 6
		if r > 0xffff {
			escaped = 12
		}
		if n := len(norm.NFC.String(string(r))); n > escaped {
			t.Fatalf("%+q has %d bytes in form C, its escape %d", r, n, escaped)
		}
	}
	if got := proseBytes([]byte("中文, déjà vu 😀")); got != int64(len("中文, déjà vu 😀")) {
		t.Errorf("ordinary text is bounded by %d bytes", got)
	}
	check(strings.Repeat("\U0001D160", 50) + "abc")
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

package placeholder

import "testing"

func TestIn(t *testing.T) {
	for _, text := range []string{
		"${HOME}/t", "sk-${key:-x}", "$(cat key)", "{{ .Values.key }}", "$KEY", "$K", "$_", "sk-$KEY", "x$TOK", "http://$HOST:8000",
		"$HOME/t", "$A_1", "%TOK%", "sk-%TOK%", "%USERPROFILE%\\t", "%ADDR%", "postgres://u:%DB_PASSWORD%@h/d", "pa$$WORD", "a $KEY b",
	} {
		if !In(text) {
			t.Errorf("%q passes", text)
		}
	}
	for _, text := range []string{
		"", "$", "%", "$$", "%%", "$5", "costs-$5-and-${more", "pa$$word", "pa$sword", "p$Wq9x", "x$A", "$2a$10$N9qo8uLOickgx2ZMRZoMye",
		"100%", "50%-100%", "p%C3%A9", "p%A9B%20x", "a%20B%20c", "$KEYs", "$Key", "{a}", "sk-abc_DEF", "%a%", "%A%", "A%_", "($5)", "$KÉ",
	} {
		if In(text) {
			t.Errorf("%q is refused", text)
		}
	}
}

func FuzzIn(f *testing.F) {
	f.Add("sk-$KEY")
	f.Add("%A9B%20")
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) != 2 && In(text) && !In(text+" ") { // a text of two bytes, such as $K, is a placeholder only by itself
			t.Errorf("%q is one, and none within a text", text)
		}
	})
}

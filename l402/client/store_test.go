package client_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFilesArePrivateAndWhole(t *testing.T) {
	g, dir := newGateway(t), filepath.Join(t.TempDir(), "new")
	mustCall(t, buyer(t, g, &fakeWallet{g: g}, dir), callURL)
	var token string
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, _ error) error {
		info, err := d.Info()
		if err != nil {
			t.Fatal(err)
		}
		want := fs.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o", path, got)
		}
		if strings.Contains(path, "/tokens/") {
			token = path
		}
		return nil
	})
	if err := os.WriteFile(token, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err := call(t.Context(), buyer(t, g, &fakeWallet{g: g}, dir), callURL)
	if err == nil || !strings.Contains(err.Error(), token) {
		t.Errorf("damaged token: %v, want an error that names %s", err, token)
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	g, dir := newGateway(t), t.TempDir()
	mustCall(t, buyer(t, g, &fakeWallet{g: g}, dir), callURL)
	tok := storedTokens(t, dir)[0]
	shown := ""
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q"} {
		shown += fmt.Sprintf(verb, tok)
	}
	j, err := tok.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	shown += string(j) + tok.LogValue().String()
	_, secret, _ := strings.Cut(tok.Authorization(), " ")
	mac, preimage, _ := strings.Cut(secret, ":")
	if strings.Contains(shown, preimage) || strings.Contains(shown, mac) || strings.Contains(shown, mac[:24]) {
		t.Errorf("secrets in %s", shown)
	}
}

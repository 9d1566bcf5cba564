package chaos

import (
	"net/url"
	"path/filepath"
	"testing"

	"sluice.example/sluice/internal/chaos/wire"
)

// PostgresWire forwards to a server that listens on a unix socket until the
// test ends, and returns the database's URL by way of the wire.
func PostgresWire(t testing.TB, databaseURL string) (*wire.Wire, string) {
	t.Helper()
	u, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	w, err := wire.New("unix", filepath.Join(u.Query().Get("host"), ".s.PGSQL.5432"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	u.Host = w.Address
	u.RawQuery = url.Values{"user": {"postgres"}, "sslmode": {"disable"}}.Encode()
	return w, u.String()
}

package postgres

import (
	"context"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"sluice.example/sluice/internal/store/pgtest"
	"sluice.example/sluice/metering"
)

// promised returns the promise about a setting.
func promised(t *testing.T, d *DB, setting string) (metering.Promise, bool) {
	t.Helper()
	list, err := d.Promises(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(list, func(p metering.Promise) bool { return strings.HasPrefix(p.Setting, setting) })
	if i < 0 {
		return metering.Promise{}, false
	}
	return list[i], true
}

func expect(t *testing.T, d *DB, setting, words string, broken bool) {
	t.Helper()
	p, found := promised(t, d, setting)
	if !found || !strings.Contains(p.Means, words) || p.Broken != broken {
		t.Errorf("%s: found %v, %+v", setting, found, p)
	}
}

// asUser opens the database as a role of few rights.
func asUser(t *testing.T, database, name string) *DB {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	query := u.Query()
	query.Set("user", name)
	u.RawQuery = query.Encode()
	d, err := OpenReader(context.Background(), u.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// TestPromisesOfALaxServer checks that there is a warning about each setting that breaks a promise.
func TestPromisesOfALaxServer(t *testing.T) {
	d, err := Open(context.Background(), pgtest.New(t, false).URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	expect(t, d, "fsync=off", "Set fsync=on", true)
	expect(t, d, "full_page_writes=off", "wrong balances", true)
	expect(t, d, "data_checksums=off", "verify-ledger", false)
	expect(t, d, "server_version=", "last 600 ms", false)
	if p, found := promised(t, d, "synchronous_commit="); found {
		t.Errorf("without syncs it says %+v", p)
	}
}

// TestPromisesOfStandbys checks that the promise changes with the standby, and with the right to see the standby.
func TestPromisesOfStandbys(t *testing.T) {
	ctx := context.Background()
	server := pgtest.New(t, true)
	database := server.URL("postgres")
	d, err := Open(ctx, database)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	expect(t, d, "synchronous_commit=on", "No standby follows", false)
	list, err := d.Promises(ctx)
	if err != nil || slices.ContainsFunc(list, func(p metering.Promise) bool { return p.Broken }) {
		t.Errorf("a sound server: %+v, %v", list, err)
	}
	c, err := pgx.Connect(ctx, database)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	for _, sql := range []string{"CREATE ROLE app LOGIN", "GRANT SELECT ON ALL TABLES IN SCHEMA public TO app"} {
		if _, err := c.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	weak := asUser(t, database, "app")
	standby := server.Standby(t, "second")
	within(t, "a standby", func() bool {
		p, _ := promised(t, d, "synchronous_commit=on")
		return strings.Contains(p.Means, "may lose the last payments")
	})
	expect(t, weak, "synchronous_commit=on", "may lose the last payments", false)

	set(t, c, "synchronous_standby_names", "'second'")
	within(t, "a synchronous standby", func() bool {
		p, _ := promised(t, d, "synchronous_commit=on")
		return strings.Contains(p.Means, "on the disks of this server and of a synchronous standby")
	})
	expect(t, weak, "synchronous_commit=on", "loses nothing", false)
	set(t, c, "synchronous_commit", "remote_write")
	within(t, "another setting", func() bool {
		p, _ := promised(t, d, "synchronous_commit=remote_write")
		return strings.Contains(p.Means, "in the memory of a synchronous standby")
	})
	set(t, c, "synchronous_commit", "local")
	within(t, "another setting", func() bool { p, _ := promised(t, d, "synchronous_commit=local"); return p.Broken })
	set(t, c, "synchronous_commit", "on")
	standby.Kill()
	within(t, "the loss of the standby", func() bool {
		p, _ := promised(t, d, "synchronous_commit=on")
		return p.Broken && strings.Contains(p.Means, "waits until one is")
	})
	expect(t, weak, "synchronous_commit=on", "loses nothing", false) // as far as its role can see
	set(t, c, "synchronous_standby_names", "''")
}

// set changes a setting of the server for all sessions. It does not wait for a standby.
func set(t *testing.T, c *pgx.Conn, name, value string) {
	t.Helper()
	for _, sql := range []string{"ALTER SYSTEM SET " + name + " = " + value, "SELECT pg_reload_conf()"} {
		if _, err := c.Exec(context.Background(), sql); err != nil {
			t.Fatal(sql, err)
		}
	}
}

// TestPromisesInWords checks cases for which a test would otherwise have to make a special server.
func TestPromisesInWords(t *testing.T) {
	for _, c := range []struct {
		name  string
		f     facts
		words string
	}{
		{"minimal", facts{level: "minimal", commit: "on"}, "neither a standby nor a continuous backup"},
		{"checksums", facts{fullPages: "off", checksums: "on"}, "will notice but not mend"},
	} {
		said := func(p metering.Promise) bool { return strings.Contains(p.Means, c.words) }
		if !slices.ContainsFunc(c.f.promises(), said) {
			t.Errorf("%s: %+v", c.name, c.f.promises())
		}
	}
}

package main

import "path"

// target says which tests guard which files.
type target struct {
	files  []string // patterns of path.Match, from the repository's root
	except []string
	suites []suite // cheapest first
}

// suite is a set of tests of one package.
type suite struct {
	pkg   string   // as the go command takes it
	tests string   // -run; empty: all
	skip  string   // -skip
	flags []string // further flags of the test binary
	needs needs
}

// needs names what a suite is run for only on request.
type needs int

const (
	nothing needs = iota
	needsPostgres
	needsLND
)

// Tests of storetest that take most of the time. They run after all others. A
// name that no longer exists costs nothing but time.
const slowStore = `^TestStore$/^(SweepByItself|Ambiguity|LockAmbiguity|LockedRow|StoreAway|StoreHangs|` +
	`AuditByItself|Model)$`

// The model test draws from a fixed seed, so that a mutant has the same fate each
// time, and as many sequences at once as it would draw in all its rounds. It
// writes no file into the working tree and does not look for a shorter example.
var rapidFlags = []string{"-rapid.seed=1", "-rapid.checks=500", "-rapid.nofailfile", "-rapid.shrinktime=1ms"}

var (
	meteringTests = []suite{{pkg: "./metering"}}
	sqliteTests   = []suite{
		{pkg: "./internal/store/sqlite", skip: slowStore, flags: rapidFlags},
		{pkg: "./internal/store/sqlite", tests: slowStore, flags: rapidFlags},
	}
	postgresTests = []suite{
		{pkg: "./internal/store/postgres", skip: slowStore, flags: rapidFlags, needs: needsPostgres},
		{pkg: "./internal/store/postgres", tests: slowStore, flags: rapidFlags, needs: needsPostgres},
	}
	lightningTests = []suite{
		{pkg: "./internal/lightning", skip: "^TestRealNode$"},
		{pkg: "./internal/lightning", tests: "^TestRealNode$", needs: needsLND},
	}
	migrationTests         = []suite{{pkg: "./migrations"}}
	migrationPostgresTests = []suite{{pkg: "./migrations", needs: needsPostgres}}
)

// moneyCode is what this tool mutates.
var moneyCode = []target{
	{files: []string{"metering/*.go"}, suites: join(meteringTests, sqliteTests, postgresTests)},
	{files: []string{"internal/store/sqlite/*.go"}, except: []string{"internal/store/sqlite/raw.go"}, suites: sqliteTests},
	{files: []string{"migrations/sqlite/*.sql"}, suites: join(migrationTests, sqliteTests)},
	{files: []string{"internal/store/postgres/*.go"}, suites: postgresTests},
	{files: []string{"migrations/postgres/*.sql"}, suites: join(migrationPostgresTests, postgresTests)},
	{files: []string{"internal/lightning/session.go", "internal/lightning/watch.go", "internal/lightning/watermark.go",
		"internal/lightning/settled.go"}, suites: lightningTests},
	{files: []string{"internal/pricer/record.go"}, suites: join([]suite{{pkg: "./internal/pricer"}}, sqliteTests, postgresTests)},
}

func join(lists ...[]suite) (all []suite) {
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

// has reports whether the target has the file.
func (t *target) has(file string) bool {
	return !matches(t.except, file) && matches(t.files, file)
}

func matches(patterns []string, file string) bool {
	for _, p := range patterns {
		if ok, _ := path.Match(p, file); ok {
			return true
		}
	}
	return false
}

// guards lists the suites that guard a set of files, in order, as far as the
// flags ask for them. A file whose own store is not asked for has none.
func guards(targets []target, files []string, o options) (list []suite) {
	seen := map[string]bool{}
	for i := range targets {
		t := &targets[i]
		for _, f := range files {
			if !t.has(f) {
				continue
			}
			for _, s := range t.suites {
				if s.wanted(o) && !seen[s.key()] {
					seen[s.key()] = true
					list = append(list, s)
				}
			}
		}
	}
	return list
}

func (s *suite) wanted(o options) bool {
	return s.needs == nothing || s.needs == needsPostgres && o.postgres || s.needs == needsLND && o.lnd
}

func (s *suite) key() string { return s.pkg + " " + s.tests + " " + s.skip }

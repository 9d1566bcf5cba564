package main

import "path"

// target says which tests guard which files.
type target struct {
	files  []string // patterns of path.Match, relative to the repository's root
	except []string
	suites []suite // cheapest first
}

// suite is a set of tests of one package.
type suite struct {
	pkg   string   // package path, as for the go command
	tests string   // value of -run; "": all tests
	skip  string   // value of -skip
	flags []string // further flags of the test binary
	needs needs
}

// needs says what a suite needs besides Go. A suite with a need runs only on request.
type needs int

const (
	nothing needs = iota
	needsPostgres
	needsLND
)

// slowStore are the tests of storetest that take most of the time. They run after all other tests.
// A name in it that no longer exists has no effect but a longer run.
const slowStore = `^TestStore$/^(SweepByItself|Ambiguity|LockAmbiguity|LockedRow|StoreAway|StoreHangs|` +
	`AuditByItself|Model)$`

// rapidFlags are the flags of the model test. The test uses a fixed seed, so that each run of a
// mutant has the same result. It checks at once as many sequences as in all its usual rounds. It
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

// moneyCode is the code that this tool mutates.
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

// has reports whether the file belongs to the target.
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

// guards returns the suites that guard a set of files, in order, limited to what the flags request.
// A file of a store that the flags do not request has no suites.
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

package chaos

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"sluice.example/sluice/internal/lab"
	"sluice.example/sluice/internal/lab/labtest"
	"sluice.example/sluice/internal/store/pgtest"
)

// versionBefore is the commit of the version that is upgraded from. It is the last
// one that reads the positional form of rates and usage only.
const versionBefore = "cff6a8daabd4578035e0a45b51863c5558c6d862"

// before is where gateways of the version before are started, next to those of site.
var before struct {
	once sync.Once
	site *Site
	err  error
}

// errNoHistory reports a copy of the sources without the commit to build.
var errNoHistory = errors.New("this copy of the sources lacks the version before: no git, or a shallow clone")

// ofBefore builds the gateway of the version before from git, once.
func ofBefore(t *testing.T) *Site {
	t.Helper()
	before.once.Do(func() {
		s := &Site{dir: filepath.Join(site.dir, "before"), launcher: site.launcher}
		before.site, before.err = s, buildCommit(versionBefore, s.dir, s.program())
	})
	if errors.Is(before.err, errNoHistory) {
		t.Skip(before.err)
	}
	if before.err != nil {
		t.Fatal(before.err)
	}
	return before.site
}

// buildCommit builds the gateway of a commit into a file within dir.
func buildCommit(commit, dir, out string) error {
	root, err := exec.Command("git", "rev-parse", "--show-toplevel").Output()
	if err != nil || exec.Command("git", "cat-file", "-e", commit+"^{commit}").Run() != nil {
		return errNoHistory
	}
	sources := filepath.Join(dir, "sources")
	if err := os.MkdirAll(sources, 0o700); err != nil {
		return err
	}
	archive := filepath.Join(dir, "sources.tar")
	for _, c := range []struct {
		in   string
		args []string
	}{
		{string(root[:len(root)-1]), []string{"git", "archive", "--output", archive, commit}},
		{sources, []string{"tar", "-xf", archive}},
		{sources, []string{"go", "build", "-o", out, "./cmd/gateway"}},
	} {
		cmd := exec.Command(c.args[0], c.args[1:]...)
		cmd.Dir = c.in
		if said, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build the gateway of commit %s: %s: %w\n%s", commit, cmd, err, said)
		}
	}
	return nil
}

// as starts the gateway again as a build of another version, on the same ledger.
func (g *Gateway) as(t *testing.T, s *Site) *Gateway {
	t.Helper()
	g.site = s
	g.Restart(t)
	return g
}

// verifyAs has verify-ledger of each version look at the books.
func (g *Gateway) verifyAs(t *testing.T, sites ...*Site) {
	t.Helper()
	for _, s := range sites {
		labtest.Eventually(t, 15*time.Second, "the books agree", func() error {
			_, err := lab.VerifyLedger(t.Context(), s.program(), g.Config)
			return err
		})
	}
}

// TestUpgrade: gateways of this version and of the one before work on the same ledger,
// one after the other and at once. Either charges and settles the holds of the other,
// and both find that the books agree.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	t.Run("SQLite handed over and back", func(t *testing.T) {
		t.Parallel()
		old, till := ofBefore(t), meet(t)
		g := old.Gateway(t, till.Settings(paced(t, 12).URL))
		kill(t, till, g, func() *Gateway { return g.as(t, site) })
		kill(t, till, g, func() *Gateway { return g.as(t, old) })
		g.verifyAs(t, old, site)
	})
	t.Run("PostgreSQL shared", func(t *testing.T) {
		t.Parallel()
		sharedByVersions(t, ofBefore(t))
	})
}

func sharedByVersions(t *testing.T, old *Site) {
	s := &siege{till: meet(t), server: pgtest.New(t, true)}
	settings := s.till.Settings(paced(t, 60).URL)
	settings.Lease, settings.Renew = siegeLease().String(), (siegeLease() / 3).String()
	settings.Store = s.server.Fresh(t)
	s.gateways = []*Gateway{old.Gateway(t, settings), site.Gateway(t, settings)}
	s.accounts = buyMany(t, s.till, s.gateways[0], 4, 1_000_000)

	for i, name := range []string{"the one before", "this one"} {
		// Past its lease: the other charges its holds, and what it settles late
		// replaces that.
		t.Run(name+" stops and goes on", func(t *testing.T) {
			wantCleanElsewhere(t, s.under(t, func(l *Traffic) {
				s.gateways[i].Pause(t)
				time.Sleep(siegeLease() + 5*time.Second)
				l.AwaitPaid(t, 1-i, 4, 30*time.Second)
				s.gateways[i].Resume(t)
			}), i)
		})
		t.Run(name+" is killed", func(t *testing.T) {
			wantCleanElsewhere(t, s.under(t, func(l *Traffic) {
				s.gateways[i].Kill(t)
				time.Sleep(siegeLease() + 2*time.Second)
				l.AwaitPaid(t, 1-i, 4, 30*time.Second)
				s.gateways[i].Restart(t)
			}), i)
		})
		t.Run("its money is spent at the other one: "+name, func(t *testing.T) {
			both := &siege{till: s.till, gateways: []*Gateway{s.gateways[1-i], s.gateways[i]}}
			both.spentMeanwhile(t)
		})
	}
	t.Run("upgraded under load", func(t *testing.T) {
		wantCleanElsewhere(t, s.under(t, func(*Traffic) {
			if err := s.gateways[0].Stop(); err != nil {
				t.Error(err)
			}
			s.gateways[0].as(t, site)
		}), 0)
	})
	s.gateways[1].verifyAs(t, old, site)
}

package lab

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"sluice.example/sluice/internal/lab/proc"
)

const (
	startLimit = 30 * time.Second // time for a gateway to become ready
	stopLimit  = 40 * time.Second // time for a gateway to end after it was told to end
)

// Server is one `gateway serve` in a process of its own. The caller writes the configuration.
type Server struct {
	*Gateway
	Name     string // for messages; "": "gateway"
	Launcher *proc.Launcher
	Program  string // path of the gateway binary
	Config   string // path of the configuration
	Log      string // path of the log

	process *proc.Process // the newest process; nil before Start
}

// Start starts the gateway and waits until it is ready. A server whose process has ended may be
// started again.
func (s *Server) Start(ctx context.Context) (err error) {
	name := s.Name
	if name == "" {
		name = "gateway"
	}
	s.HTTP.CloseIdleConnections() // the connections to an earlier process are broken
	s.process, err = s.Launcher.Start(proc.Spec{Name: name, Path: s.Program, Args: []string{"serve", "--config", s.Config}, Log: s.Log})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if err = s.process.Await(ctx, name+" is ready", s.ready); err != nil {
		s.process.Kill()
	}
	return err
}

// ready returns nil when the gateway is ready. For a gateway with HTTPS it asks the operator's
// listener, because the certificate may be one that this process does not trust.
func (s *Server) ready(ctx context.Context) error {
	if strings.HasPrefix(s.URL, "https:") {
		return Answers(ctx, s.Admin+"/healthz")
	}
	return s.Ready(ctx)
}

// Answers returns nil when url answers 200, and otherwise an error that says why not.
func Answers(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(url + " answers " + resp.Status)
	}
	return nil
}

// Process returns the newest process, or nil before Start.
func (s *Server) Process() *proc.Process { return s.process }

// Running reports whether the newest process has not ended. It returns false before Start.
func (s *Server) Running() bool { return s.process != nil && s.process.Running() }

// Stop ends the gateway with SIGTERM, as an operator does. A gateway that does not end with exit
// status 0 is an error.
func (s *Server) Stop() error {
	if err := s.process.Finish(syscall.SIGTERM, stopLimit); err != nil {
		return fmt.Errorf("stop the gateway: %w", err)
	}
	return nil
}

// VerifyLedger runs `gateway verify-ledger` and returns its output. It fails when the check finds a
// difference.
func (s *Server) VerifyLedger(ctx context.Context) (string, error) {
	return VerifyLedger(ctx, s.Program, s.Config)
}

// VerifyLedger runs `gateway verify-ledger` of a program with a configuration and returns its
// output.
func VerifyLedger(ctx context.Context, program, config string) (string, error) {
	out, err := exec.CommandContext(ctx, program, "verify-ledger", "--config", config).CombinedOutput()
	if err == nil && !strings.Contains(string(out), "all agrees") {
		err = errors.New("it does not say that all agrees")
	}
	if err != nil {
		return string(out), fmt.Errorf("verify-ledger: %w\n%s", err, out)
	}
	return string(out), nil
}

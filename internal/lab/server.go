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
	startLimit = 30 * time.Second // until a gateway is ready
	stopLimit  = 40 * time.Second // until a gateway that was told to end has ended
)

// Server is one `gateway serve` in a process of its own. Its user writes the
// configuration.
type Server struct {
	*Gateway
	Name     string // for messages; empty: "gateway"
	Launcher *proc.Launcher
	Program  string // path of the gateway binary
	Config   string // path of the configuration
	Log      string // path of the log

	process *proc.Process // the newest; nil before Start
}

// Start starts the gateway and waits until it is ready. A server whose process
// has ended may be started again.
func (s *Server) Start(ctx context.Context) (err error) {
	name := s.Name
	if name == "" {
		name = "gateway"
	}
	s.HTTP.CloseIdleConnections() // of an earlier process
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

// ready asks for readiness. The certificate of a gateway with HTTPS may be one
// that nobody trusts, so that the operator's listener is asked instead.
func (s *Server) ready(ctx context.Context) error {
	if strings.HasPrefix(s.URL, "https:") {
		return Answers(ctx, s.Admin+"/healthz")
	}
	return s.Ready(ctx)
}

// Answers reports why url does not answer 200.
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

// Process is the newest process; nil before Start.
func (s *Server) Process() *proc.Process { return s.process }

// Running says whether there is a process that has not ended.
func (s *Server) Running() bool { return s.process != nil && s.process.Running() }

// Stop ends the gateway as an operator does and wants exit status 0.
func (s *Server) Stop() error {
	if err := s.process.Finish(syscall.SIGTERM, stopLimit); err != nil {
		return fmt.Errorf("stop the gateway: %w", err)
	}
	return nil
}

// VerifyLedger runs the operator's check and returns what it prints. It fails
// where the check finds anything.
func (s *Server) VerifyLedger(ctx context.Context) (string, error) {
	return VerifyLedger(ctx, s.Program, s.Config)
}

// VerifyLedger is `gateway verify-ledger` with a program and a configuration.
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

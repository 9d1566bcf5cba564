package intake

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// certificateCheck is how often the files are looked at while clients connect, because the tools
// that renew certificates replace the files without a signal.
const certificateCheck = 10 * time.Second

// Certificates are a listener's certificate and key. They are read again when their files change.
// It is safe for concurrent use.
type Certificates struct {
	certFile, keyFile string
	log               *slog.Logger
	clock             func() time.Time

	mu      sync.Mutex
	current *tls.Certificate
	read    [2]stamp  // the stamps of the files that current was read from
	failed  [2]stamp  // the stamps of the files that could not be used, so that the log says so once
	looked  time.Time // when the files were looked at last
}

// stamp changes when the content of a file is replaced.
type stamp struct {
	changed time.Time
	size    int64
}

// NewCertificates reads the files, which are in PEM. log may be nil: then nothing is logged. clock
// may be nil: then it is time.Now.
func NewCertificates(certFile, keyFile string, log *slog.Logger, clock func() time.Time) (*Certificates, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if clock == nil {
		clock = time.Now
	}
	c := &Certificates{certFile: certFile, keyFile: keyFile, log: log, clock: clock}
	return c, c.Reload()
}

// Reload reads the files now. After an error the old certificate remains.
func (c *Certificates) Reload() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.load()
}

// Use reads other files from now on, and reads them now. After an error nothing has changed.
func (c *Certificates) Use(certFile, keyFile string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	oldCert, oldKey := c.certFile, c.keyFile
	c.certFile, c.keyFile = certFile, keyFile
	err := c.load()
	if err != nil {
		c.certFile, c.keyFile = oldCert, oldKey
	}
	return err
}

func (c *Certificates) stamps() (s [2]stamp) {
	for i, name := range []string{c.certFile, c.keyFile} {
		if info, err := os.Stat(name); err == nil {
			s[i] = stamp{info.ModTime(), info.Size()}
		}
	}
	return s
}

func (c *Certificates) load() error {
	now := c.stamps()
	c.looked = c.clock()
	cert, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		c.failed = now
		return fmt.Errorf("load TLS certificate: %w", err)
	}
	renewed := c.current != nil && c.read != now
	c.current, c.read, c.failed = &cert, now, [2]stamp{}
	if renewed {
		c.log.Info("TLS certificate was read again", "file", c.certFile, "valid_until", cert.Leaf.NotAfter)
	}
	return nil
}

// get returns the certificate for a handshake. It reads the files again if they have changed.
func (c *Certificates) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.clock().Sub(c.looked) < certificateCheck {
		return c.current, nil
	}
	c.looked = c.clock()
	if now := c.stamps(); now != c.read && now != c.failed {
		// Maybe only one of the two files was replaced so far: then the next look succeeds.
		if err := c.load(); err != nil {
			c.log.Warn("TLS certificate has changed and cannot be used; the one before stays", "error", err)
		}
	}
	return c.current, nil
}

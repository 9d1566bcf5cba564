package intake

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// certificateCheck is how often the files are looked at while clients come: what
// renews certificates replaces them without telling anybody.
const certificateCheck = 10 * time.Second

// Certificates are a listener's certificate and key, read again when their files
// change. It is safe for concurrent use.
type Certificates struct {
	certFile, keyFile string
	log               *slog.Logger
	clock             func() time.Time

	mu      sync.Mutex
	current *tls.Certificate
	read    [2]stamp  // of the files that current is of
	failed  [2]stamp  // of the files that could not be used; said once
	looked  time.Time // when the files were looked at last
}

// stamp tells one content of a file from the next.
type stamp struct {
	changed time.Time
	size    int64
}

// NewCertificates reads the files (PEM). Nil log: nothing is logged; nil clock:
// time.Now.
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

// Reload reads the files now. After an error the certificate stays what it was.
func (c *Certificates) Reload() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.load()
}

// Use names other files and reads them. After an error nothing has changed.
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

// get is the certificate for a handshake, of the files as they are now.
func (c *Certificates) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.clock().Sub(c.looked) < certificateCheck {
		return c.current, nil
	}
	c.looked = c.clock()
	if now := c.stamps(); now != c.read && now != c.failed {
		// Half of the two may be written already: then the next look succeeds.
		if err := c.load(); err != nil {
			c.log.Warn("TLS certificate has changed and cannot be used; the one before stays", "error", err)
		}
	}
	return c.current, nil
}

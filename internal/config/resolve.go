package config

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"path/filepath"
	"strconv"
	"strings"

	"gopkg.in/macaroon.v2"

	"sluice.example/sluice/l402"
)

// Environment variables that override the file, so that the file need not hold a secret. The variable
// of a backend's key is SLUICE_BACKEND_<NAME>_API_KEY: see BackendEnv.
const (
	EnvStore      = "SLUICE_STORE"        // like the key store
	EnvAdminToken = "SLUICE_ADMIN_TOKEN"  // like admin.token
	EnvMasterKey  = "SLUICE_MASTER_KEY"   // 64 hex digits of a key that mints, before all keys of the file
	EnvMacaroon   = "SLUICE_LND_MACAROON" // lnd's macaroon in hex or base64
	EnvTLSCert    = "SLUICE_LND_TLS_CERT" // PEM, or base64 of PEM or of a DER certificate
)

// envKeyID is the id of the master key that came from the environment.
const envKeyID = "environment"

// BackendEnv returns the name of the environment variable of a backend's key. It holds the backend's
// name in upper case, with '_' in place of each character that is not a letter or digit.
func BackendEnv(name string) string {
	upper := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, name)
	return "SLUICE_BACKEND_" + upper + "_API_KEY"
}

// path returns a path of the file as an absolute path.
func (c *checker) path(p string) string {
	if p == "" || filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(c.dir, p)
}

// secretFile reads a file that holds one secret as text.
func (c *checker) secretFile(key, path string) string {
	data, err := readFile(path)
	if err != nil {
		c.failAt(key, "%v", err)
		return ""
	}
	text := strings.TrimSpace(string(data))
	if text == "" {
		c.failAt(key, "%s is empty", path)
	}
	return text
}

// resolve takes over the environment variables and reads the files that the configuration names.
func (c *checker) resolve() {
	cfg := c.cfg
	if s := c.getenv(EnvStore); s != "" {
		var err error
		if cfg.Store, err = parseStore(s); err != nil {
			c.fail(0, EnvStore, "%v", err)
		}
	}
	cfg.Store.Path = c.path(cfg.Store.Path)
	if s := c.getenv(EnvAdminToken); s != "" {
		cfg.Admin.Token = Secret(s)
	}
	cfg.TLS.Cert, cfg.TLS.Key = c.path(cfg.TLS.Cert), c.path(cfg.TLS.Key)
	c.resolveKeys()
	c.resolveMacaroon()
	c.resolveCertificate()
	for i := range cfg.Backends {
		c.resolveBackend(&cfg.Backends[i], "backends["+strconv.Itoa(i)+"]")
	}
}

func (c *checker) resolveKeys() {
	keys := c.cfg.Keys
	for i := range keys {
		k, at := &keys[i], "keys["+strconv.Itoa(i)+"]"
		text := string(k.Secret)
		switch {
		case k.SecretFile != "" && text != "":
			c.failAt(at, "has both secret and secret_file, want one of them")
			continue
		case k.SecretFile != "":
			k.SecretFile = c.path(k.SecretFile)
			if text = c.secretFile(at+".secret_file", k.SecretFile); text == "" {
				continue
			}
			c.checkPrivate(at+".secret_file", k.SecretFile)
		case text == "":
			c.failAt(at, "has no secret; give secret or secret_file (64 hex digits, from `openssl rand -hex 32`)")
			continue
		}
		secret, ok := masterSecret(text)
		if !ok {
			c.failAt(at, "the secret is not 64 hex digits; make one with `openssl rand -hex 32`")
		}
		k.Master = l402.MasterKey{ID: k.ID, State: k.State, Secret: secret}
	}
	text := c.getenv(EnvMasterKey)
	if text == "" {
		return
	}
	secret, ok := masterSecret(text)
	if !ok {
		c.fail(0, EnvMasterKey, "is not 64 hex digits; make one with `openssl rand -hex 32`")
	}
	c.envKey = true
	c.cfg.Keys = append([]Key{{ID: envKeyID, State: l402.KeyMint, Secret: Secret(text),
		Master: l402.MasterKey{ID: envKeyID, State: l402.KeyMint, Secret: secret}}}, keys...)
}

// masterSecret reads 64 hex digits that are not all zero.
func masterSecret(text string) (secret [32]byte, ok bool) {
	b, err := hex.DecodeString(strings.TrimSpace(text))
	if err != nil || len(b) != len(secret) {
		return secret, false
	}
	secret = [32]byte(b)
	return secret, secret != [32]byte{}
}

func (c *checker) resolveMacaroon() {
	l := &c.cfg.Lightning
	var raw []byte
	key := "lightning"
	switch env := c.getenv(EnvMacaroon); {
	case env != "":
		key = EnvMacaroon
		raw = decodeText(env)
	case l.MacaroonFile != "" && l.MacaroonBase64 != "":
		c.failAt(key, "has both macaroon and macaroon_base64, want one of them")
		return
	case l.MacaroonFile != "":
		key += ".macaroon"
		l.MacaroonFile = c.path(l.MacaroonFile)
		data, err := readFile(l.MacaroonFile)
		if err != nil {
			c.failAt(key, "%v", err)
			return
		}
		raw = data
		c.checkPrivate(key, l.MacaroonFile)
	case l.MacaroonBase64 != "":
		key += ".macaroon_base64"
		raw = decodeText(string(l.MacaroonBase64))
	default:
		c.failAt(key, "has no macaroon; give lnd's invoice.macaroon as macaroon (a path), macaroon_base64 or %s", EnvMacaroon)
		return
	}
	var m macaroon.Macaroon
	if len(raw) == 0 || m.UnmarshalBinary(raw) != nil {
		c.failAt(key, "is not a macaroon of lnd")
		return
	}
	c.checkRights(key, raw)
	l.Macaroon = Secret(raw)
}

func (c *checker) resolveCertificate() {
	l := &c.cfg.Lightning
	var raw []byte
	key := "lightning"
	switch env := c.getenv(EnvTLSCert); {
	case env != "":
		key = EnvTLSCert
		raw = pemOrBase64(env)
	case l.TLSCertFile != "" && l.TLSCertBase64 != "":
		c.failAt(key, "has both tls_cert and tls_cert_base64, want one of them")
		return
	case l.TLSCertFile != "":
		key += ".tls_cert"
		l.TLSCertFile = c.path(l.TLSCertFile)
		data, err := readFile(l.TLSCertFile)
		if err != nil {
			c.failAt(key, "%v", err)
			return
		}
		raw = data
	case l.TLSCertBase64 != "":
		key += ".tls_cert_base64"
		raw = pemOrBase64(l.TLSCertBase64)
	default:
		return // nothing given, so the system's roots are used
	}
	if !x509.NewCertPool().AppendCertsFromPEM(raw) {
		c.failAt(key, "holds no certificate in PEM form; give lnd's tls.cert")
		return
	}
	l.TLSCert = raw
}

func (c *checker) resolveBackend(b *Backend, at string) {
	name := BackendEnv(b.Name)
	env := c.getenv(name)
	switch {
	case env != "":
		if c.envUsed[name] {
			c.failAt(at+".name", "%s is set and is the variable of another backend too; rename one", name)
		}
		if c.envUsed == nil {
			c.envUsed = map[string]bool{}
		}
		c.envUsed[name] = true
		b.APIKey = Secret(env)
	case b.APIKeyFile != "" && b.APIKey != "":
		c.failAt(at, "has both api_key and api_key_file, want one of them")
	case b.APIKeyFile != "":
		b.APIKeyFile = c.path(b.APIKeyFile)
		b.APIKey = Secret(c.secretFile(at+".api_key_file", b.APIKeyFile))
		c.checkPrivate(at+".api_key_file", b.APIKeyFile)
	}
	if strings.ContainsFunc(string(b.APIKey), func(r rune) bool { return r <= ' ' || r > '~' }) {
		c.failAt(at, "the API key holds a character that cannot stand in a header")
	}
}

// decodeText reads hex or any kind of base64. It returns nil if s is neither.
func decodeText(s string) []byte {
	s = strings.Join(strings.Fields(s), "")
	if b, err := hex.DecodeString(s); err == nil {
		return b
	}
	s = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(s, "="))
	b, err := base64.RawStdEncoding.DecodeString(s)
	if err != nil {
		return nil
	}
	return b
}

// pemOrBase64 reads PEM, or base64 of PEM or of one DER certificate.
func pemOrBase64(s string) []byte {
	if strings.Contains(s, "-----BEGIN") {
		return []byte(s)
	}
	b := decodeText(s)
	if _, err := x509.ParseCertificate(b); err == nil {
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b})
	}
	return b
}

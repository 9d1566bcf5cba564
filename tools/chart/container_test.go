package chart

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// What the values files may name without making it.
const (
	existingAccount = "payments"
	existingClaim   = "old-ledger"
)

// secrets are the Secrets that exist before the release, as docs/kubernetes.md
// has them made.
var secrets = sync.OnceValue(func() map[string]map[string][]byte {
	macaroon, _ := base64.StdEncoding.DecodeString("AgEDbG5kAgdleGFtcGxlAAAGIMhEFsLihPVi352mLzDfnjqZ4ov9eWWPYvvQPNRqBscI")
	cert, key := certificate()
	return map[string]map[string][]byte{
		"sluice-keys":     {"2026-01.hex": []byte(strings.Repeat("ab", 32) + "\n"), "2025-07.hex": []byte(strings.Repeat("cd", 32)), "2025": []byte(strings.Repeat("ef", 32))},
		"sluice-lnd":      {"invoice.macaroon": macaroon, "tls.cert": cert},
		"sluice-postgres": {"url": []byte("postgres://sluice:secret@db.example/sluice?sslmode=verify-full"), "ca.crt": cert},
		"sluice-admin":    {"token": []byte("5f1f0c3a5f1f0c3a5f1f0c3a5f1f0c3a")},
		"gpu-1":           {"api-key": []byte("sk-one")},
		"4711":            {"true": []byte("sk-two")},
		"sluice-tls":      {"tls.crt": cert, "tls.key": key},
	}
})

// certificate returns a self-signed certificate and its key.
func certificate() (cert, key []byte) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &k.PublicKey, k)
	if err != nil {
		return nil, nil
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return nil, nil
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

// contents is what a pod finds in a volume, by relative path. It fails the test
// where something is named that does not exist.
func contents(t *testing.T, m *manifests, v corev1.Volume) map[string][]byte {
	t.Helper()
	switch {
	case v.ConfigMap != nil && m.configMaps[v.ConfigMap.Name] != nil:
		files := map[string][]byte{}
		for k, text := range m.configMaps[v.ConfigMap.Name].Data {
			files[k] = []byte(text)
		}
		return files
	case v.Secret != nil && secrets()[v.Secret.SecretName] != nil:
		if mode := v.Secret.DefaultMode; mode == nil || *mode != 0o440 {
			t.Errorf("volume %s: its files are not for the pod's group only", v.Name)
		}
		files := map[string][]byte{}
		for _, item := range v.Secret.Items {
			data, ok := secrets()[v.Secret.SecretName][item.Key]
			if !ok {
				t.Errorf("volume %s: Secret %s has no key %s", v.Name, v.Secret.SecretName, item.Key)
			}
			files[item.Path] = data
		}
		return files
	case v.PersistentVolumeClaim != nil && (m.claims[v.PersistentVolumeClaim.ClaimName] != nil || v.PersistentVolumeClaim.ClaimName == existingClaim):
	case v.EmptyDir != nil:
	default:
		t.Errorf("volume %s has no known source, or one that does not exist", v.Name)
	}
	return nil
}

// environment returns the environment of a container, with the values of its Secrets.
func environment(t *testing.T, c corev1.Container) (env []string) {
	t.Helper()
	seen := map[string]bool{}
	for _, e := range c.Env {
		if seen[e.Name] {
			t.Errorf("container %s has the variable %s twice", c.Name, e.Name)
		}
		seen[e.Name] = true
		value := e.Value
		if from := e.ValueFrom; from != nil && from.SecretKeyRef != nil {
			data, ok := secrets()[from.SecretKeyRef.Name][from.SecretKeyRef.Key]
			if !ok {
				t.Errorf("variable %s: Secret %s has no key %s", e.Name, from.SecretKeyRef.Name, from.SecretKeyRef.Key)
			}
			value = string(data)
		} else if strings.HasPrefix(e.Name, "SLUICE_") {
			t.Errorf("variable %s is a secret and stands in the manifest", e.Name)
		}
		env = append(env, e.Name+"="+value)
	}
	return env
}

// putUp writes the files that a pod's container would see below a new folder. It returns the folder
// and the path of the configuration in it. In the configuration, the paths of the mounts are
// replaced by paths in the folder.
func putUp(t *testing.T, m *manifests, pod corev1.PodSpec) (root, config string) {
	t.Helper()
	root = t.TempDir()
	c := pod.Containers[0]
	sources := map[string]corev1.Volume{}
	for _, v := range pod.Volumes {
		sources[v.Name] = v
	}
	var inside []string // pairs for a replacer: path in the container, path here
	for _, mount := range c.VolumeMounts {
		dir := filepath.Join(root, mount.MountPath)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		inside = append(inside, mount.MountPath+"/", dir+"/")
		for name, data := range contents(t, m, sources[mount.Name]) {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i, arg := range c.Args {
		if arg == "--config" && i+1 < len(c.Args) {
			config = filepath.Join(root, c.Args[i+1])
		}
	}
	data, err := os.ReadFile(config)
	if err != nil {
		t.Fatalf("the container's configuration is not mounted: %v", err)
	}
	text := strings.NewReplacer(inside...).Replace(string(data))
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return root, config
}

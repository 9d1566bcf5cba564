package chart

import (
	"errors"
	"flag"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chartutil"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

var update = flag.Bool("update", false, "write what the bad cases say to their .txt files")

// good are the values files that must work. Each has the objects that it makes in addition to the
// Deployment, the ConfigMap and the two Services, which every file makes.
var good = map[string]struct{ claim, account, budget, exporter bool }{
	"minimal":    {claim: true, account: true},
	"sqlite":     {},
	"postgres":   {account: true, budget: true},
	"exporter":   {claim: true, account: true, exporter: true},
	"everything": {account: true, budget: true, exporter: true},
}

func TestGoodValues(t *testing.T) {
	for name, want := range good {
		t.Run(name, func(t *testing.T) {
			m := renderGood(t, load(t), "shop", readValues(t, name+".good.yml"))
			if has := [4]bool{len(m.claims) == 1, len(m.accounts) == 1, len(m.budgets) == 1, len(m.daemonSets) == 1}; has != [4]bool{want.claim, want.account, want.budget, want.exporter} {
				t.Errorf("claim, account, budget, exporter: %v, want %+v", has, want)
			}
			if len(m.deployments) != 1 || len(m.configMaps) != 1 || strings.TrimSpace(m.notes) == "" {
				t.Fatalf("%d deployments, %d config maps, notes %q", len(m.deployments), len(m.configMaps), m.notes)
			}
			checkReferences(t, m)
			for _, d := range m.deployments {
				checkHardening(t, d.Spec.Template.Spec)
				checkShutdown(t, m, d)
				checkConfig(t, m, d.Spec.Template.Spec)
				checkArguments(t, d.Spec.Template.Spec)
			}
			for _, d := range m.daemonSets {
				if name != "everything" { // which gives it rights
					checkHardening(t, d.Spec.Template.Spec)
				}
				checkArguments(t, d.Spec.Template.Spec)
			}
		})
	}
}

// Each x.bad.yml must be refused with exactly the text of x.bad.txt.
func TestBadValues(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.bad.yml")
	if len(files) == 0 {
		t.Fatal("no cases")
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			_, err := render(load(t), "shop", readValues(t, filepath.Base(file)))
			if err == nil {
				t.Fatal("rendered")
			}
			// Helm puts its own words for the place in the templates before the chart's message.
			got := err.Error()
			if i := strings.LastIndex(got, "the values cannot work:"); i >= 0 {
				got = got[i:]
			}
			got = inOrder(strings.TrimSpace(got)) + "\n"
			expected := strings.TrimSuffix(file, ".yml") + ".txt"
			if *update {
				if err := os.WriteFile(expected, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(expected)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
			if strings.Contains(got, "hunter") {
				t.Errorf("a secret shows in:\n%s", got)
			}
		})
	}
}

// inOrder sorts the messages of the schema, because their order is random.
func inOrder(text string) string {
	head, list, _ := strings.Cut(text, "\n- ")
	lines := strings.Split(list, "\n- ")
	slices.Sort(lines)
	return strings.TrimSuffix(head+"\n- "+strings.Join(lines, "\n- "), "\n- ")
}

// The chart's schema knows only the keys of values.yaml. Each map of the defaults refuses a further
// key, unless the chart does not define the content of the map.
func TestSchemaIsClosed(t *testing.T) {
	free := map[string]bool{
		"config": true, "resources": true, "affinity": true, "podSecurityContext": true, "gpuExporter.securityContext": true, "gpuExporter.resources": true,
		"gpuExporter.resources.limits": true, "gpuExporter.resources.requests": true, "resources.limits": true, "resources.requests": true,
		"podAnnotations": true, "podLabels": true, "nodeSelector": true, "gpuExporter.nodeSelector": true, "gpuExporter.podAnnotations": true,
		"gpuExporter.serviceAnnotations": true, "admin.serviceAnnotations": true, "service.annotations": true, "serviceAccount.annotations": true,
	}
	var visit func(path string, at map[string]any)
	visit = func(path string, at map[string]any) {
		if !free[path] {
			values := readValues(t, "minimal.good.yml")
			inner := values
			for _, k := range strings.FieldsFunc(path, func(r rune) bool { return r == '.' }) {
				if _, ok := inner[k].(map[string]any); !ok {
					inner[k] = map[string]any{}
				}
				inner = inner[k].(map[string]any)
			}
			inner["misspelt"] = "x"
			if _, err := render(load(t), "shop", values); err == nil || !strings.Contains(err.Error(), "misspelt") {
				t.Errorf("a key that does not exist in %q: %v", path, err)
			}
		}
		for k, v := range at {
			if below, ok := v.(map[string]any); ok {
				visit(strings.TrimPrefix(path+"."+k, "."), below)
			}
		}
	}
	visit("", load(t).Values)
}

// The labels that select pods must not change between upgrades. A change of the configuration must
// change the pods, so that they are replaced.
func TestUpgrade(t *testing.T) {
	c := load(t)
	first := theDeployment(t, renderGood(t, c, "shop", readValues(t, "postgres.good.yml")))
	values := readValues(t, "postgres.good.yml")
	values["image"].(map[string]any)["tag"] = "2.0.0"
	c = load(t)
	c.Metadata.Version = "9.9.9"
	second := theDeployment(t, renderGood(t, c, "shop", values))
	if !maps.Equal(first.Spec.Selector.MatchLabels, second.Spec.Selector.MatchLabels) {
		t.Errorf("selectors %v and %v", first.Spec.Selector, second.Spec.Selector)
	}
	const checksum = "checksum/config"
	if a, b := first.Spec.Template.Annotations[checksum], second.Spec.Template.Annotations[checksum]; len(a) != 64 || a != b {
		t.Errorf("checksums of one configuration: %q, %q", a, b)
	}
	values["config"].(map[string]any)["quote_ttl"] = "2m"
	third := theDeployment(t, renderGood(t, load(t), "shop", values))
	if third.Spec.Template.Annotations[checksum] == first.Spec.Template.Annotations[checksum] {
		t.Error("the pods do not show that the configuration changed")
	}
}

// The values and Secrets in docs/kubernetes.md must be correct.
func TestDocumentation(t *testing.T) {
	text := read(t, "docs/kubernetes.md")
	_, example, _ := strings.Cut(text, "```yaml\n")
	example, _, _ = strings.Cut(example, "```")
	values, err := chartutil.ReadValues([]byte(example))
	if err != nil {
		t.Fatal(err)
	}
	m := renderGood(t, load(t), "shop", values)
	checkReferences(t, m)
	pod := theDeployment(t, m).Spec.Template.Spec
	checkConfig(t, m, pod)
	made := func(secret, key string) {
		if !regexp.MustCompile(`create secret generic ` + secret + ` .*--from-(file|literal)=` + key).MatchString(text) {
			t.Errorf("nothing makes %s in the Secret %s", key, secret)
		}
	}
	for _, v := range pod.Volumes {
		if v.Secret != nil {
			for _, item := range v.Secret.Items {
				made(v.Secret.SecretName, item.Key)
			}
		}
	}
	for _, e := range pod.Containers[0].Env {
		made(e.ValueFrom.SecretKeyRef.Name, e.ValueFrom.SecretKeyRef.Key)
	}
	for name := range m.services {
		if !strings.Contains(text, "`"+name+"`") {
			t.Errorf("the Service %s is not mentioned", name)
		}
	}
}

func TestLongReleaseNames(t *testing.T) {
	values := readValues(t, "exporter.good.yml")
	checkReferences(t, renderGood(t, load(t), strings.Repeat("long-name-", 5)+"end", values)) // 53, Helm's limit
}

func theDeployment(t *testing.T, m *manifests) *appsv1.Deployment {
	t.Helper()
	for _, d := range m.deployments {
		return d
	}
	t.Fatal("there is no Deployment")
	return nil
}

// The image is built with the Go version of go.mod, and with the C library on which it runs. Its
// user is the user of the chart.
func TestDockerfile(t *testing.T) {
	text := read(t, "Dockerfile")
	module := read(t, "go.mod")
	_, version, _ := strings.Cut(module, "\ngo ")
	version, _, _ = strings.Cut(version, "\n")
	minor := version[:strings.LastIndex(version, ".")]
	for _, want := range []string{
		"ARG GO_VERSION=" + minor + ".", "FROM golang:${GO_VERSION}-bookworm AS ", "FROM gcr.io/distroless/base-debian12:nonroot",
		"CGO_ENABLED=1", "./cmd/gateway", "\nUSER 65532:65532\n", "\nENTRYPOINT [\"/usr/local/bin/gateway\"]\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the Dockerfile does not have %q", want)
		}
	}
	pod := theDeployment(t, renderGood(t, load(t), "shop", readValues(t, "minimal.good.yml"))).Spec.Template.Spec
	if s := pod.SecurityContext; s.RunAsUser == nil || *s.RunAsUser != 65532 || *s.FSGroup != 65532 {
		t.Errorf("the pod's user is not the image's: %v", s)
	}
	if c := pod.Containers[0]; len(c.Command) > 0 || c.ImagePullPolicy != corev1.PullIfNotPresent {
		t.Errorf("the container does not run the image's program: %v", c.Command)
	}
	// .dockerignore must not exclude files that the build needs.
	list := exec.Command("go", "list", "-deps", "./cmd/gateway")
	list.Dir = repository
	packages, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	let := "\n" + read(t, ".dockerignore")
	for _, p := range strings.Fields(string(packages)) {
		if ours, ok := strings.CutPrefix(p, "sluice.example/sluice/"); ok {
			if top, _, _ := strings.Cut(ours, "/"); !strings.Contains(let, "\n!"+top+"\n") {
				t.Errorf(".dockerignore keeps out %s, which has %s", top, p)
			}
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(repository, path))
	if errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("%s is gone", path)
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

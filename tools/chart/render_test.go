// Package chart checks deploy/helm/gateway and the Dockerfile, without a
// cluster. It renders the chart with Helm's own engine for each values file
// in testdata and decodes every manifest strictly into Kubernetes' API types.
// Then it follows the references between them, puts up what each container
// would find (files, variables), and lets the gateway judge its configuration
// and serve from it.
//
//	make chart
package chart

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/releaseutil"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"sigs.k8s.io/yaml"
)

const (
	repository = "../.."
	chartDir   = repository + "/deploy/helm/gateway"
	namespace  = "sluice"
)

func load(t *testing.T) *chart.Chart {
	t.Helper()
	c, err := loader.Load(chartDir)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	return c
}

func readValues(t *testing.T, file string) map[string]any {
	t.Helper()
	v, err := chartutil.ReadValuesFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// render does what `helm template RELEASE` does. It returns the texts by file.
func render(c *chart.Chart, release string, values map[string]any) (map[string]string, error) {
	caps := chartutil.DefaultCapabilities.Copy()
	caps.KubeVersion = chartutil.KubeVersion{Version: "v1.30.0", Major: "1", Minor: "30"}
	if !chartutil.IsCompatibleRange(c.Metadata.KubeVersion, caps.KubeVersion.Version) {
		return nil, fmt.Errorf("the chart is not for Kubernetes %s", caps.KubeVersion.Version)
	}
	options := chartutil.ReleaseOptions{Name: release, Namespace: namespace, Revision: 1, IsInstall: true}
	all, err := chartutil.ToRenderValues(c, values, options, caps)
	if err != nil {
		return nil, err
	}
	return engine.Render(c, all)
}

// manifests holds the objects of a release, by name.
type manifests struct {
	deployments map[string]*appsv1.Deployment
	daemonSets  map[string]*appsv1.DaemonSet
	services    map[string]*corev1.Service
	configMaps  map[string]*corev1.ConfigMap
	accounts    map[string]*corev1.ServiceAccount
	claims      map[string]*corev1.PersistentVolumeClaim
	budgets     map[string]*policyv1.PodDisruptionBudget
	notes       string
}

// renderGood renders values that must work.
func renderGood(t *testing.T, c *chart.Chart, release string, values map[string]any) *manifests {
	t.Helper()
	texts, err := render(c, release, values)
	if err != nil {
		t.Fatal(err)
	}
	m := &manifests{
		map[string]*appsv1.Deployment{}, map[string]*appsv1.DaemonSet{}, map[string]*corev1.Service{}, map[string]*corev1.ConfigMap{},
		map[string]*corev1.ServiceAccount{}, map[string]*corev1.PersistentVolumeClaim{}, map[string]*policyv1.PodDisruptionBudget{}, "",
	}
	for _, file := range slices.Sorted(maps.Keys(texts)) {
		if strings.Contains(texts[file], "<no value>") {
			t.Errorf("%s uses a value that does not exist:\n%s", file, texts[file])
		}
		if strings.HasSuffix(file, "NOTES.txt") {
			m.notes = texts[file]
			continue
		}
		for _, text := range releaseutil.SplitManifests(texts[file]) {
			if err := m.add(text); err != nil {
				t.Fatalf("%s: %v in\n%s", file, err, text)
			}
		}
	}
	return m
}

// add decodes one manifest. An unknown or repeated field is an error.
func (m *manifests) add(text string) error {
	var head struct {
		APIVersion, Kind string
		Metadata         struct{ Name, Namespace string }
	}
	if err := yaml.Unmarshal([]byte(text), &head); err != nil {
		return err
	}
	if head.Metadata.Namespace != namespace {
		return fmt.Errorf("namespace is %q", head.Metadata.Namespace)
	}
	switch name := head.Metadata.Name; head.APIVersion + " " + head.Kind {
	case " ": // a condition in the template left no text
		return nil
	case "apps/v1 Deployment":
		return decode(m.deployments, name, text)
	case "apps/v1 DaemonSet":
		return decode(m.daemonSets, name, text)
	case "v1 Service":
		return decode(m.services, name, text)
	case "v1 ConfigMap":
		return decode(m.configMaps, name, text)
	case "v1 ServiceAccount":
		return decode(m.accounts, name, text)
	case "v1 PersistentVolumeClaim":
		return decode(m.claims, name, text)
	case "policy/v1 PodDisruptionBudget":
		return decode(m.budgets, name, text)
	default:
		return fmt.Errorf("unexpected %s %s", head.APIVersion, head.Kind)
	}
}

func decode[T any](into map[string]*T, name, text string) error {
	if into[name] != nil {
		return fmt.Errorf("a second %T has the name %s", into[name], name)
	}
	into[name] = new(T)
	return yaml.UnmarshalStrict([]byte(text), into[name])
}

// workload is an object that runs pods.
type workload struct {
	kind, name string
	selector   map[string]string
	template   corev1.PodTemplateSpec
}

func (m *manifests) workloads() (list []workload) {
	for name, d := range m.deployments {
		list = append(list, workload{"Deployment", name, d.Spec.Selector.MatchLabels, d.Spec.Template})
	}
	for name, d := range m.daemonSets {
		list = append(list, workload{"DaemonSet", name, d.Spec.Selector.MatchLabels, d.Spec.Template})
	}
	return list
}

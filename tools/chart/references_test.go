package chart

import (
	"maps"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
)

// checkReferences follows every name and port with which one object refers to another.
func checkReferences(t *testing.T, m *manifests) {
	t.Helper()
	for _, w := range m.workloads() {
		if !selects(w.selector, w.template.Labels) {
			t.Errorf("%s %s does not select its own pods", w.kind, w.name)
		}
		if a := w.template.Spec.ServiceAccountName; m.accounts[a] == nil && a != existingAccount {
			t.Errorf("%s %s runs as %s, which does not exist", w.kind, w.name, a)
		}
		for _, c := range w.template.Spec.Containers {
			checkPorts(t, c)
		}
		checkVolumes(t, m, w.template.Spec)
		checkNames(t, w.name, w.template.Labels)
	}
	for name, s := range m.services {
		w := m.only(t, "Service "+name, s.Spec.Selector)
		for _, p := range s.Spec.Ports {
			if w != nil && !hasPort(w.template.Spec.Containers, p.TargetPort) {
				t.Errorf("Service %s port %s leads to port %s, which no container of %s has", name, p.Name, p.TargetPort.String(), w.name)
			}
		}
		checkNames(t, name, s.Labels)
		for _, msg := range validation.IsDNS1035Label(name) {
			t.Errorf("Service %s: %s", name, msg)
		}
	}
	for name, b := range m.budgets {
		m.only(t, "PodDisruptionBudget "+name, b.Spec.Selector.MatchLabels)
	}
}

func selects(selector, pod map[string]string) bool {
	return len(selector) > 0 && labels.SelectorFromSet(selector).Matches(labels.Set(pod))
}

// only returns the one workload whose pods match the selector.
func (m *manifests) only(t *testing.T, who string, selector map[string]string) (found *workload) {
	t.Helper()
	n := 0
	for _, w := range m.workloads() {
		if selects(selector, w.template.Labels) {
			found, n = &w, n+1
		}
	}
	if n != 1 {
		t.Errorf("%s selects the pods of %d workloads", who, n)
	}
	return found
}

func hasPort(containers []corev1.Container, port intstr.IntOrString) bool {
	return slices.ContainsFunc(containers, func(c corev1.Container) bool {
		return slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool {
			return port.Type == intstr.String && p.Name == port.StrVal || port.Type == intstr.Int && p.ContainerPort == port.IntVal
		})
	})
}

func checkPorts(t *testing.T, c corev1.Container) {
	t.Helper()
	names, numbers := map[string]bool{}, map[int32]bool{}
	for _, p := range c.Ports {
		for _, msg := range validation.IsValidPortName(p.Name) {
			t.Errorf("port %s: %s", p.Name, msg)
		}
		if names[p.Name] || numbers[p.ContainerPort] {
			t.Errorf("container %s has port %s %d twice", c.Name, p.Name, p.ContainerPort)
		}
		names[p.Name], numbers[p.ContainerPort] = true, true
	}
	for kind, probe := range map[string]*corev1.Probe{"startup": c.StartupProbe, "liveness": c.LivenessProbe, "readiness": c.ReadinessProbe} {
		if probe != nil && !hasPort([]corev1.Container{c}, probe.HTTPGet.Port) {
			t.Errorf("the %s probe of %s asks port %s, which is not there", kind, c.Name, probe.HTTPGet.Port.String())
		}
	}
}

// checkVolumes follows the mounts to their volumes, and the volumes to their content.
func checkVolumes(t *testing.T, m *manifests, pod corev1.PodSpec) {
	t.Helper()
	unused := map[string]bool{}
	for _, v := range pod.Volumes {
		unused[v.Name] = true
		contents(t, m, v)
	}
	for _, c := range pod.Containers {
		paths := map[string]bool{}
		for _, mount := range c.VolumeMounts {
			if !slices.ContainsFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Name == mount.Name }) {
				t.Errorf("container %s mounts %s, which is no volume", c.Name, mount.Name)
			}
			if paths[mount.MountPath] {
				t.Errorf("container %s mounts %s twice", c.Name, mount.MountPath)
			}
			paths[mount.MountPath] = true
			delete(unused, mount.Name)
		}
		environment(t, c)
	}
	for name := range unused {
		t.Errorf("nothing mounts volume %s", name)
	}
}

func checkNames(t *testing.T, name string, all map[string]string) {
	t.Helper()
	for _, msg := range validation.IsDNS1123Label(name) {
		t.Errorf("%s: %s", name, msg)
	}
	for _, k := range slices.Sorted(maps.Keys(all)) {
		for _, msg := range append(validation.IsQualifiedName(k), validation.IsValidLabelValue(all[k])...) {
			t.Errorf("label %s=%s of %s: %s", k, all[k], name, msg)
		}
	}
}

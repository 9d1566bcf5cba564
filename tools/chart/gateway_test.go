package chart

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"
)

// gateway is the path of the program, built from this tree.
var gateway string

func TestMain(m *testing.M) {
	os.Exit(withGateway(m.Run))
}

func withGateway(run func() int) int {
	dir, err := os.MkdirTemp("", "chart")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	gateway = filepath.Join(dir, "gateway")
	build := exec.Command("go", "build", "-o", gateway, "./cmd/gateway")
	build.Dir = repository
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the gateway: %v\n%s", err, out)
		return 1
	}
	return run()
}

// checkConfig makes the gateway read its configuration as it would in the pod.
func checkConfig(t *testing.T, m *manifests, pod corev1.PodSpec) {
	t.Helper()
	_, config := putUp(t, m, pod)
	check := func(env []string) (string, error) {
		cmd := exec.Command(gateway, "check-config", config)
		cmd.Env = env
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := check(environment(t, pod.Containers[0])); err != nil {
		t.Errorf("check-config: %v\n%s", err, out)
	}
	// The same without the Secrets of its environment, to know that it looks.
	if out, err := check([]string{"NONE="}); err == nil || !strings.Contains(out, "SLUICE_ADMIN_TOKEN") {
		t.Errorf("without environment, check-config says %v\n%s", err, out)
	}
}

// checkArguments asks the subcommand of each container for its flags, and compares them with the
// container's arguments.
func checkArguments(t *testing.T, pod corev1.PodSpec) {
	t.Helper()
	for _, c := range pod.Containers {
		out, err := exec.Command(gateway, c.Args[0], "-h").CombinedOutput()
		if err != nil {
			t.Errorf("gateway %s: %v\n%s", c.Args[0], err, out)
			continue
		}
		for _, arg := range c.Args[1:] {
			name, _, _ := strings.Cut(arg, "=")
			if strings.HasPrefix(name, "--") && !strings.Contains(string(out), "  "+name+" ") {
				t.Errorf("gateway %s has no flag %s:\n%s", c.Args[0], name, out)
			}
		}
	}
}

// checkShutdown compares how long a pod may take to end with how long the gateway may need.
func checkShutdown(t *testing.T, m *manifests, d *appsv1.Deployment) {
	t.Helper()
	var config struct {
		DrainTimeout string `json:"drain_timeout"`
		Store        string
	}
	if err := yaml.Unmarshal([]byte(m.configMaps[d.Name].Data["gateway.yaml"]), &config); err != nil {
		t.Fatal(err)
	}
	drain, err := time.ParseDuration(config.DrainTimeout)
	if err != nil {
		t.Fatal(err)
	}
	pod := d.Spec.Template.Spec
	if hook := pod.Containers[0].Lifecycle; hook != nil {
		drain += time.Duration(hook.PreStop.Sleep.Seconds) * time.Second
	}
	// The gateway needs 10 s to settle the answers that were cut, and 10 s for the ledger's queue.
	if grace := time.Duration(*pod.TerminationGracePeriodSeconds) * time.Second; grace < drain+20*time.Second {
		t.Errorf("a pod is killed after %s, and may take %s and 20 s more", grace, drain)
	}
	strategy := d.Spec.Strategy
	switch {
	case config.Store != "":
		if strategy.Type != appsv1.RecreateDeploymentStrategyType || *d.Spec.Replicas != 1 {
			t.Errorf("SQLite with %d replicas and strategy %s", *d.Spec.Replicas, strategy.Type)
		}
	case strategy.Type != appsv1.RollingUpdateDeploymentStrategyType || *strategy.RollingUpdate.MaxUnavailable != intstr.FromInt32(0):
		t.Errorf("the strategy is %+v", strategy)
	}
}

// The gateway runs as in its pod, as the image's user if the test may choose the user. It starts
// without lnd, answers its probes at the paths that the probes ask, and ends by itself on SIGTERM.
func TestProbesAreAnswered(t *testing.T) {
	m := renderGood(t, load(t), "shop", readValues(t, "minimal.good.yml"))
	pod := theDeployment(t, m).Spec.Template.Spec
	c := pod.Containers[0]
	root, config := putUp(t, m, pod)
	addresses := map[string]string{} // of the ports by name
	text := string(must(os.ReadFile(config))(t))
	for _, port := range c.Ports {
		addresses[port.Name] = freeAddress(t)
		inside := fmt.Sprintf("listen: :%d\n", port.ContainerPort)
		if strings.Count(text, inside) != 1 {
			t.Fatalf("nothing listens on port %d:\n%s", port.ContainerPort, text)
		}
		text = strings.Replace(text, inside, "listen: "+addresses[port.Name]+"\n", 1)
	}
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, gateway, c.Args[0], "--config", config)
	cmd.Env = environment(t, c)
	cmd.Dir = "/"
	var log strings.Builder
	cmd.Stderr = &log
	if os.Getuid() == 0 {
		asNobody(t, cmd, root, *pod.SecurityContext.RunAsUser)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	status := map[string]int{}
	for kind, probe := range map[string]*corev1.Probe{"startup": c.StartupProbe, "liveness": c.LivenessProbe, "readiness": c.ReadinessProbe} {
		status[kind] = answer(ctx, "http://"+addresses[probe.HTTPGet.Port.StrVal]+probe.HTTPGet.Path)
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("serve: %v\n%s", err, log.String())
	}
	// Without lnd the gateway is alive, but not ready.
	if status["startup"] != http.StatusOK || status["liveness"] != http.StatusOK || status["readiness"] != http.StatusServiceUnavailable {
		t.Errorf("probes are answered %v\n%s", status, log.String())
	}
}

// asNobody runs a command as a user who owns nothing but the writable volumes.
func asNobody(t *testing.T, cmd *exec.Cmd, root string, user int64) {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(user), Gid: uint32(user)}}
	// Temporary folders are closed to others.
	for _, dir := range []string{filepath.Dir(root), filepath.Dir(cmd.Path)} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(filepath.Join(root, "/var/lib/sluice"), int(user), int(user)); err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(cmd.Env, "TMPDIR="+filepath.Join(root, "/var/lib/sluice"))
}

// answer asks until there is an answer and returns its status. It returns 0 when there is no
// answer.
func answer(ctx context.Context, url string) int {
	for ctx.Err() == nil {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return 0
		}
		if got, err := http.DefaultClient.Do(request); err == nil {
			got.Body.Close()
			return got.StatusCode
		}
		time.Sleep(20 * time.Millisecond)
	}
	return 0
}

// freeAddress returns an address with a port below the range for outgoing connections. A connection
// could otherwise take the port before the gateway listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 18_000+rand.IntN(14_000)))
		if err == nil {
			l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no free port")
	return ""
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

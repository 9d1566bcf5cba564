package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"sluice.example/sluice/backends/gpu/exporter"
	"sluice.example/sluice/backends/gpu/nvml"
	"sluice.example/sluice/backends/gpu/telemetry"
	"sluice.example/sluice/internal/cli"
	"sluice.example/sluice/internal/quiet"
)

// exporterEvery is how often the exporter reads the driver. The driver's own numbers change about
// as often.
const exporterEvery = 200 * time.Millisecond

// runExporter serves what NVML reads of this machine's GPUs, for a gateway that runs on another
// machine.
func runExporter(e env, set *pflag.FlagSet) cli.Run {
	listen := set.String("listen", ":9400", "address to serve /metrics and /healthz on")
	library := set.String("nvml-library", "", "path of NVIDIA's management library (default: "+nvml.DefaultLibrary+", where the dynamic loader finds it)")
	return func(ctx context.Context, _ []string) error {
		signal.Ignore(syscall.SIGHUP) // the exporter has nothing to reload, and must not end at a hang-up
		log := slog.New(quiet.New(slog.NewTextHandler(e.stderr, nil)))
		sampler, err := nvml.Open(nvml.Config{Library: *library, Log: log})
		if err != nil {
			return err
		}
		defer sampler.Close()
		host, err := exporterHost(e)
		if err != nil {
			return err
		}
		feed := telemetry.NewFeed(telemetry.FeedConfig{Name: "nvml", Sampler: sampler, Every: exporterEvery, Log: log})
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		listener, err := net.Listen("tcp", *listen)
		if err != nil {
			return err
		}
		go feed.Run(ctx)
		fmt.Fprintf(e.stdout, "serving http://%s/metrics\n", listener.Addr())
		return serveUntil(ctx, listener, exporter.New(exporter.Config{Feed: feed, Host: host}))
	}
}

// exporterHost returns the value of the label Hostname. In a Kubernetes pod it is the node's name,
// from NODE_NAME, because the host name in a pod is the pod's name.
func exporterHost(e env) (string, error) {
	if name := e.getenv("NODE_NAME"); name != "" {
		return name, nil
	}
	return os.Hostname()
}

// serveUntil serves h until ctx ends. Requests in flight then have closeGrace to end.
func serveUntil(ctx context.Context, listener net.Listener, h http.Handler) error {
	server := &http.Server{Handler: h, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeGrace)
	defer cancel()
	if err := server.Shutdown(grace); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

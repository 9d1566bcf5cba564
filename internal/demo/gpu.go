package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"sluice.example/sluice/backends/gpu/nvml/stub"
	"sluice.example/sluice/internal/lab/proc"
)

// gpuFile returns the file in which the inference server writes the values of its simulated GPU.
// The stand-in for NVIDIA's library reads the file.
func (d *demo) gpuFile() string { return d.place.path("gpu/values.txt") }

func (d *demo) exporterURL() string { return "http://" + d.exporterAt + "/metrics" }

// startGPU builds the stand-in for NVIDIA's library and starts an exporter. The exporter reads the
// stand-in through the binding that reads real GPUs. The gateway asks this exporter as it asks an
// exporter on another host. Without a C compiler, or on a system without NVML, the demo continues
// without a GPU, as a gateway does.
func (d *demo) startGPU(ctx context.Context) error {
	err := d.startExporter(ctx)
	if err == nil {
		d.story.say("gpu-exporter (pid %d) reads its GPU at %s: a simulated one, through the real NVML binding", d.exporter.Pid(), d.exporterURL())
		return nil
	}
	if ctx.Err() != nil {
		return err
	}
	if d.exporter != nil {
		err = errors.Join(err, d.exporter.Stop(stopGrace))
		d.exporter = nil
	}
	fmt.Fprintf(d.story, "no GPU can be simulated here; the price will follow the inference server's own metrics alone:\n%v\n", err)
	return nil
}

func (d *demo) startExporter(ctx context.Context) error {
	library, err := stub.Build(ctx, filepath.Dir(d.gpuFile()))
	if err != nil {
		return err
	}
	d.exporter, err = d.launcher.Start(proc.Spec{
		Name: "GPU exporter", Path: d.cfg.Gateway, Log: d.place.path("exporter.log"),
		Args: []string{"gpu-exporter", "--listen", d.exporterAt, "--nvml-library", library},
		Env:  append(os.Environ(), stub.Env+"="+d.gpuFile()),
	})
	if err != nil {
		return err
	}
	return await(ctx, d.exporter, "http://"+d.exporterAt+"/healthz")
}

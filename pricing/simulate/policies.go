package simulate

import (
	"errors"
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"

	"sluice.example/sluice/pricing"
)

// Policy is a named set of parameters.
type Policy struct {
	Name   string
	Params pricing.Params
}

// Names returns the names of the built-in policies. The last three exist for comparison.
func Names() []string {
	return []string{"default", "target", "curve", "static", "utilization", "unclamped"}
}

// Named returns a built-in policy, or false if there is no such policy.
func Named(name string) (Policy, bool) {
	p := pricing.DefaultParams()
	switch name {
	case "default": // what serve uses unless the configuration says otherwise
	case "target":
		p.Policy = pricing.PolicyTarget
	case "curve":
		p.Policy = pricing.PolicyCurve
	case "static":
		p.Policy = pricing.PolicyStatic
	case "utilization": // a curve that follows only what NVML calls utilization
		p.Policy = pricing.PolicyCurve
		p.Parts = pricing.Parts{Utilization: 1, Clip: 1}
		p.Curve = []pricing.Point{{Pressure: 0.5, Multiplier: 1}, {Pressure: 1, Multiplier: p.Ceiling}}
	// This is the target rule without its clamps. It answers the whole of a smoothed error, whatever
	// the error's size.
	case "unclamped":
		p.Gain, p.Smoothing, p.SlewUp, p.SlewDown, p.Parts.Clip = 1, 0.5, 100, 100, 1e6
	default:
		return Policy{}, false
	}
	return Policy{Name: name, Params: p}, true
}

const maxPolicyFile = 1 << 16

// ParsePolicy reads a policy from YAML whose keys are those of pricing.Params. A key that is not given
// keeps its value of the default policy. ParsePolicy returns an error if the parameters are not valid.
func ParsePolicy(name string, r io.Reader) (Policy, error) {
	p := Policy{Name: name, Params: pricing.DefaultParams()}
	dec := yaml.NewDecoder(io.LimitReader(r, maxPolicyFile))
	dec.KnownFields(true)
	switch err := dec.Decode(&p.Params); {
	case errors.Is(err, io.EOF):
		return Policy{}, fmt.Errorf("policy %s: the file is empty", name)
	case err != nil:
		return Policy{}, fmt.Errorf("policy %s: %w", name, err)
	}
	if _, err := p.Params.Validate(); err != nil {
		return Policy{}, fmt.Errorf("policy %s: %w", name, err)
	}
	return p, nil
}

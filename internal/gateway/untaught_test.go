package gateway_test

import (
	"strings"
	"testing"

	"sluice.example/sluice/metering/format"
)

// TestPictureThatNobodyTaught: until answers have shown how many tokens a picture takes, it counts
// as the most that the owner configured, because unknown is not free.
func TestPictureThatNobodyTaught(t *testing.T) {
	image := `[{"role":"user","content":[{"type":"text","text":"What is this?"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]}]`
	for _, engine := range []format.Engine{format.EngineGeneric, format.EngineOllama, format.EngineTGI} {
		r := playing(t, engine, saysAndWaits(sse, strings.Repeat(word("abcd", ""), 20)), func(s *setup) {
			old := s.service
			s.service = func(svc *gatewayService) { old(svc); svc.Models[0].Limits.MediaTokens = 6500 }
		})
		k := r.buy(maxPurchase)
		r.hangUp(k, asStream(100, "messages", image), "abcd", 20)
		r.wantAbout(k, string(engine)+": a picture of 6000 tokens", 6000, 20)
	}
}

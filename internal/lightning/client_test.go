package lightning_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"sluice.example/sluice/internal/lightning"
)

func TestDialRefusesWhatCannotWork(t *testing.T) {
	good := lightning.Config{Address: "127.0.0.1:10009", Macaroon: someMacaroon(t)}
	for name, change := range map[string]func(*lightning.Config){
		"address":     func(c *lightning.Config) { c.Address = "" },
		"no macaroon": func(c *lightning.Config) { c.Macaroon = nil },
		"binary":      func(c *lightning.Config) { c.Macaroon = []byte(hex.EncodeToString(c.Macaroon)) },
		"PEM":         func(c *lightning.Config) { c.TLSCert = []byte("not a certificate") },
	} {
		cfg := good
		change(&cfg)
		_, err := lightning.Dial(cfg)
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && len(cfg.Macaroon) > 0 && strings.Contains(err.Error(), hex.EncodeToString(good.Macaroon)) {
			t.Errorf("%s: the error tells the macaroon", name)
		}
	}
	c, err := lightning.Dial(good)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if s := fmt.Sprintf("%+v %#v", c, c); strings.Contains(s, hex.EncodeToString(good.Macaroon)) {
		t.Error("the client prints its macaroon")
	}
}

func TestAwayIsUnavailable(t *testing.T) {
	c, err := lightning.Dial(lightning.Config{Address: "127.0.0.1:1", Macaroon: someMacaroon(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for name, err := range map[string]error{
		"ready":   c.Ready(t.Context()),
		"invoice": second(c.PlainInvoice(t.Context(), 1_000, "")),
	} {
		if !errors.Is(err, lightning.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func second[A, B any](_ A, _ B, err error) error { return err }

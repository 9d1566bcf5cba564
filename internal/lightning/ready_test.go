package lightning_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/lightningnetwork/lnd/lnrpc"
)

// TestReadyAsksOnce checks that callers at the same time, and soon after, share one probe, even if
// the caller that began the probe has left.
func TestReadyAsksOnce(t *testing.T) {
	begun, answer := make(chan struct{}), make(chan struct{})
	f := &fakeLND{onList: func(int, *lnrpc.ListInvoiceRequest) {
		close(begun) // a second probe would panic
		<-answer
	}}
	c := serve(t, f)
	first, leave := context.WithCancel(t.Context())
	left := make(chan error)
	go func() { left <- c.Ready(first) }()
	<-begun
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("the one that left: %v", err)
	}
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if err := c.Ready(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	close(answer)
	all.Wait()
	if err := c.Ready(t.Context()); err != nil {
		t.Error(err)
	}
}

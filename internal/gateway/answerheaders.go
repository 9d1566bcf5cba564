package gateway

import (
	"net/http"
	"strconv"

	"sluice.example/sluice/internal/gateway/problem"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
)

// These are the response headers of the wire contract.
const (
	headerBalance    = "L402-Balance-Msat"
	headerCost       = "L402-Cost-Msat"
	headerEpoch      = "L402-Price-Epoch"
	headerModel      = "L402-Model" // the model that served, where the client allowed another model
	headerRequestID  = "L402-Request-Id"
	headerSettlement = "L402-Settlement"
)

// passes reports whether a backend's response header reaches the client. Only headers that
// describe the answer do. Other headers would act on the client in the gateway's name, describe a
// body that the gateway rewrites, or tell about the backend. A backend's own challenge would make
// a wallet pay a stranger's invoice.
func passes(name string) bool {
	switch name {
	case "Content-Type", "Content-Language", "Retry-After":
		return true
	}
	return false
}

// passHeader copies the headers of a backend that the client may see.
func passHeader(to, backend http.Header) {
	for name, values := range backend {
		if passes(name) && len(values) > 0 {
			to[name] = values[:1]
		}
	}
}

// announce sets the headers that name the request, its price, and the model if the client allowed
// another model.
func (c *call) announce(h http.Header) {
	h[headerEpoch] = []string{strconv.FormatInt(c.hold.Epoch(), 10)}
	h[headerRequestID] = []string{c.x.requestID}
	problem.NameAnswer(h, c.x.requestID, speaksAnthropic(c.x.r))
	if c.o.tells {
		h[headerModel] = []string{c.o.asked}
	}
}

// tell sets the headers with the charge, or the header that says that the charge is pending.
func (c *call) tell(h http.Header, entry *metering.Entry, settled bool) {
	if !settled {
		h[headerSettlement] = []string{"pending"}
		return
	}
	h[headerCost] = []string{amountText(entry.Charged)}
	h[headerBalance] = []string{amountText(entry.Available)}
}

func amountText(m l402.Msat) string { return strconv.FormatInt(int64(m), 10) }

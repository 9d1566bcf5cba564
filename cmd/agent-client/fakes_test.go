package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/lightningnetwork/lnd/lnrpc"
	"github.com/lightningnetwork/lnd/lnrpc/routerrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/l402/bolt11"
	"sluice.example/sluice/l402/bolt11/bolt11test"
)

// world is one seller and one buyer's lnd. Its invoices are real. A payment of a multiple of 66 sat
// finds no route. A payment of a multiple of 77 sat remains in flight.
type world struct {
	node *btcec.PrivateKey
	ring *l402.Keyring

	mu        sync.Mutex
	preimages map[l402.PaymentHash]l402.Preimage
	amounts   map[l402.PaymentHash]l402.Msat
	payments  map[l402.PaymentHash]lnrpc.Payment_PaymentStatus
	attempts  int
	balances  map[l402.TokenID]l402.Msat
	deposited map[l402.TokenID]l402.Msat
	credited  map[l402.PaymentHash]bool
	spent     map[l402.ChainID]l402.Msat
}

const (
	noRoute  l402.Msat = 66_000
	inFlight l402.Msat = 77_000
	price    l402.Msat = 1_500 // of each paid call
	minimum  l402.Msat = 20_000
	smallest l402.Msat = 4_000 // purchase by topup
)

func newWorld() (*world, error) {
	node, err := btcec.NewPrivateKey()
	if err != nil {
		return nil, err
	}
	key := l402.MasterKey{ID: "k", State: "mint"}
	rand.Read(key.Secret[:])
	ring, err := l402.NewKeyring(l402.LedgerID{1}, []l402.MasterKey{key})
	return &world{
		node: node, ring: ring,
		preimages: map[l402.PaymentHash]l402.Preimage{}, amounts: map[l402.PaymentHash]l402.Msat{},
		payments: map[l402.PaymentHash]lnrpc.Payment_PaymentStatus{}, balances: map[l402.TokenID]l402.Msat{},
		deposited: map[l402.TokenID]l402.Msat{}, credited: map[l402.PaymentHash]bool{},
		spent: map[l402.ChainID]l402.Msat{},
	}, err
}

// invoice returns a signed BOLT11 invoice that the fake lnd can pay.
func (w *world) invoice(network bolt11.Network, amount l402.Msat, at time.Time) (string, l402.PaymentHash) {
	p := l402.NewPreimage()
	w.preimages[p.Hash()], w.amounts[p.Hash()] = p, amount
	return bolt11test.Sign(w.node, bolt11.Invoice{
		Network: network, Hash: p.Hash(), Amount: amount, Description: "calls", At: at, ExpiresAt: at.Add(time.Hour), Secret: [32]byte{1},
	}), p.Hash()
}

func (w *world) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	token := w.token(r.Header)
	switch r.URL.Path {
	case "/free":
		rw.Header().Set("X-Seen", r.Header.Get("X-Sent"))
		fmt.Fprintf(rw, "%s free %s", r.Method, body)
	case "/binary":
		rw.Write([]byte{0xff, 0xfe, 0})
	case "/broken":
		problem(rw, http.StatusBadGateway, map[string]any{"title": "Bad Gateway", "detail": "no backend"})
	case "/mainnet":
		w.demand(rw, l402.NewTokenID(), bolt11.Mainnet, minimum)
	case "/v1/models":
		list(rw, "silent", "cut", "failing", "down", "m", "demo", "sluice", "chat", "default")
	case "/l402/quote":
		fmt.Fprintf(rw, `{"model":%q,"bound_msat":%d,"asked":%q}`+"\n", r.URL.Query().Get("model"), price, r.URL.Query().Encode())
	case "/l402/balance":
		w.balance(rw, token)
	case "/l402/topup":
		w.topup(rw, token, body)
	default:
		w.sell(rw, r, token, body)
	}
}

// list answers as /v1/models does. The model "down" cannot be served.
func list(rw http.ResponseWriter, names ...string) {
	var data []map[string]any
	for _, name := range names {
		data = append(data, map[string]any{"id": name, "object": "model", "l402": map[string]any{"available": name != "down"}})
	}
	json.NewEncoder(rw).Encode(map[string]any{"object": "list", "data": data})
}

func (w *world) token(h http.Header) *l402.Token {
	c, err := l402.CredentialFromHeader(h)
	if err != nil || c == nil {
		return nil
	}
	t, err := w.ring.Verify(c)
	if err != nil {
		return nil
	}
	if !w.credited[t.PaymentHash] {
		w.credited[t.PaymentHash] = true
		w.balances[t.ID] += t.Deposit
		w.deposited[t.ID] += t.Deposit
	}
	return t
}

func (w *world) balance(rw http.ResponseWriter, t *l402.Token) {
	if t == nil {
		problem(rw, http.StatusUnauthorized, map[string]any{"title": "Unauthorized"})
		return
	}
	fmt.Fprintf(rw, `{"account":"%s","available_msat":%d,"held_msat":0,"deposited_msat":%d,"charged_msat":%d,"refunded_msat":0,"budgets":[]}`,
		t.ID, w.balances[t.ID], w.deposited[t.ID], w.deposited[t.ID]-w.balances[t.ID])
}

func (w *world) topup(rw http.ResponseWriter, t *l402.Token, body []byte) {
	var v struct {
		Amount l402.Msat `json:"amount_msat"`
	}
	if t == nil || json.Unmarshal(body, &v) != nil {
		problem(rw, http.StatusBadRequest, map[string]any{"title": "Bad Request"})
		return
	}
	w.demand(rw, t.ID, bolt11.Regtest, max(v.Amount, smallest))
}

func (w *world) sell(rw http.ResponseWriter, r *http.Request, t *l402.Token, body []byte) {
	if limit, err := l402.ParseMsat(r.Header.Get("L402-Max-Cost-Msat")); err == nil && limit < price {
		problem(rw, http.StatusPreconditionFailed, map[string]any{"title": "Cost above maximum", "detail": "it may cost 1500 msat"})
		return
	}
	if t != nil {
		if err := t.Authorize("inference", time.Now()); err != nil {
			problem(rw, http.StatusForbidden, map[string]any{"title": "Forbidden", "detail": err.Error()})
			return
		}
	}
	if left := w.left(t); left < price {
		account, ask := l402.NewTokenID(), minimum
		if t != nil && !t.Attenuated {
			account = t.ID
		}
		if wish, err := l402.ParseMsat(r.Header.Get("L402-Deposit-Msat")); err == nil {
			ask = max(ask, wish)
		}
		w.demand(rw, account, bolt11.Regtest, ask, "type", "urn:sluice:problem:insufficient-balance", "required_msat", price, "balance_msat", left)
		return
	}
	w.balances[t.ID] -= price
	w.spent[t.Chain] += price
	left := w.left(t)
	rw.Header().Set("L402-Request-Id", "11111111-2222-3333-4444-555555555555")
	if r.URL.Path == "/v1/chat/completions" {
		chatAnswer(rw, body, left)
		return
	}
	rw.Header().Set("L402-Cost-Msat", strconv.FormatInt(int64(price), 10))
	rw.Header().Set("L402-Balance-Msat", strconv.FormatInt(int64(left), 10))
	fmt.Fprintf(rw, "%s %s", r.Method, body)
}

// chatAnswer streams a short answer. The stream of the model "cut" ends before its end, the model
// "silent" reports no usage, and the model "failing" reports an error.
func chatAnswer(rw http.ResponseWriter, body []byte, left l402.Msat) {
	var req chatRequest
	if err := json.Unmarshal(body, &req); err != nil || !req.Stream || !req.StreamOptions["include_usage"] {
		problem(rw, http.StatusBadRequest, map[string]any{"title": "Bad Request", "detail": "no stream with usage"})
		return
	}
	rw.Header().Set("Content-Type", "text/event-stream")
	last := req.Messages[len(req.Messages)-1].Content
	for _, word := range append(strings.Fields(last), "indeed.") {
		fmt.Fprintf(rw, "data: {\"model\":%q,\"choices\":[{\"index\":0,\"delta\":{\"content\":%q}}]}\n\n", req.Model, word+" ")
		rw.(http.Flusher).Flush()
	}
	comment := fmt.Sprintf(": l402 cost_msat=%d balance_msat=%d\n", price, left)
	if req.Model == "failing" {
		fmt.Fprint(rw, "data: {\"error\":{\"message\":\"out of memory\",\"type\":\"backend-unavailable\",\"param\":null,\"code\":\"backend_failed\"}}\nevent: error\n"+comment+"\n")
		return
	}
	if req.Model != "silent" && req.Model != "cut" {
		fmt.Fprint(rw, "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n")
		fmt.Fprint(rw, "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":3}}\n\n")
	}
	fmt.Fprint(rw, comment)
	if req.Model != "cut" {
		fmt.Fprint(rw, "data: [DONE]\n\n")
	}
}

// left returns how much a token may still spend, in msat.
func (w *world) left(t *l402.Token) l402.Msat {
	if t == nil {
		return 0
	}
	left := w.balances[t.ID]
	if n := len(t.Budgets); n > 0 {
		left = min(left, t.Budgets[n-1].Limit-w.spent[t.Chain])
	}
	return left
}

// demand answers with a challenge. members are the names and values of further members of the
// problem document.
func (w *world) demand(rw http.ResponseWriter, account l402.TokenID, network bolt11.Network, amount l402.Msat, members ...any) {
	invoice, hash := w.invoice(network, amount, time.Now())
	m, err := w.ring.Mint(l402.MintParams{Service: "inference", PaymentHash: hash, TokenID: account, Deposit: amount, ValidUntil: time.Now().Add(time.Hour)})
	if err != nil {
		panic(err)
	}
	rw.Header().Set("WWW-Authenticate", l402.FormatChallenge(m, invoice))
	all := map[string]any{"title": "Payment Required", "amount_msat": amount, "payment_hash": hash.String()}
	for i := 0; i < len(members); i += 2 {
		all[members[i].(string)] = members[i+1]
	}
	problem(rw, http.StatusPaymentRequired, all)
}

func problem(rw http.ResponseWriter, status int, members map[string]any) {
	rw.Header().Set("Content-Type", "application/problem+json")
	rw.WriteHeader(status)
	json.NewEncoder(rw).Encode(members)
}

// lndServer is the part of lnd that a wallet needs. Like a real lnd it uses TLS and requires a
// macaroon.
type lndServer struct {
	lnrpc.UnimplementedLightningServer
	routerrpc.UnimplementedRouterServer
	w        *world
	macaroon string // hex
}

// serveLND starts an lndServer and returns its address and its certificate in PEM.
func serveLND(w *world, mac []byte) (addr string, cert []byte, stop func(), err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return "", nil, nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, nil, err
	}
	s := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
	})))
	server := &lndServer{w: w, macaroon: hex.EncodeToString(mac)}
	lnrpc.RegisterLightningServer(s, server)
	routerrpc.RegisterRouterServer(s, server)
	go s.Serve(l)
	return l.Addr().String(), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), s.Stop, nil
}

func (s *lndServer) allowed(ctx context.Context) error {
	md, _ := metadata.FromIncomingContext(ctx)
	if v := md.Get("macaroon"); len(v) != 1 || v[0] != s.macaroon {
		return status.Error(codes.Unknown, "verification failed: signature mismatch after caveat verification")
	}
	return nil
}

func (s *lndServer) SendPaymentV2(r *routerrpc.SendPaymentRequest, stream routerrpc.Router_SendPaymentV2Server) error {
	if err := s.allowed(stream.Context()); err != nil {
		return err
	}
	inv, err := bolt11.Decode(r.PaymentRequest)
	if err != nil {
		return err
	}
	hash := inv.Hash
	s.w.mu.Lock()
	s.w.attempts++
	state := lnrpc.Payment_SUCCEEDED
	switch s.w.amounts[hash] {
	case noRoute:
		state = lnrpc.Payment_FAILED
	case inFlight:
		state = lnrpc.Payment_IN_FLIGHT
	}
	if s.w.payments[hash] == lnrpc.Payment_SUCCEEDED {
		s.w.mu.Unlock()
		return status.Error(codes.AlreadyExists, "invoice is already paid")
	}
	s.w.payments[hash] = state
	payment := s.w.payment(hash)
	s.w.mu.Unlock()
	if state == lnrpc.Payment_IN_FLIGHT {
		return status.Error(codes.Unavailable, "lnd is shutting down")
	}
	return stream.Send(payment)
}

func (s *lndServer) TrackPaymentV2(r *routerrpc.TrackPaymentRequest, stream routerrpc.Router_TrackPaymentV2Server) error {
	if err := s.allowed(stream.Context()); err != nil {
		return err
	}
	hash := l402.PaymentHash(r.PaymentHash)
	s.w.mu.Lock()
	_, known := s.w.payments[hash]
	payment := s.w.payment(hash)
	s.w.mu.Unlock()
	if !known {
		return status.Error(codes.NotFound, "payment isn't initiated")
	}
	return stream.Send(payment)
}

// payment returns lnd's description of a payment. The caller holds mu.
func (w *world) payment(hash l402.PaymentHash) *lnrpc.Payment {
	p := &lnrpc.Payment{PaymentHash: hash.String(), Status: w.payments[hash], ValueMsat: int64(w.amounts[hash])}
	switch p.Status {
	case lnrpc.Payment_SUCCEEDED:
		p.PaymentPreimage, p.FeeMsat = w.preimages[hash].Hex(), 21
	case lnrpc.Payment_FAILED:
		p.FailureReason = lnrpc.PaymentFailureReason_FAILURE_REASON_NO_ROUTE
	}
	return p
}

func (s *lndServer) ChannelBalance(ctx context.Context, _ *lnrpc.ChannelBalanceRequest) (*lnrpc.ChannelBalanceResponse, error) {
	return &lnrpc.ChannelBalanceResponse{
		LocalBalance: &lnrpc.Amount{Msat: 900_000}, RemoteBalance: &lnrpc.Amount{Msat: 100_000},
	}, s.allowed(ctx)
}

func (s *lndServer) AddInvoice(ctx context.Context, in *lnrpc.Invoice) (*lnrpc.AddInvoiceResponse, error) {
	if err := s.allowed(ctx); err != nil {
		return nil, err
	}
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	invoice, _ := s.w.invoice(bolt11.Regtest, l402.Msat(in.ValueMsat), time.Now())
	return &lnrpc.AddInvoiceResponse{PaymentRequest: invoice}, nil
}

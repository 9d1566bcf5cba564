package client

import "sluice.example/sluice/l402/bolt11"

// DecodeInvoice decodes an invoice for a wallet on the given network. It fails with an
// *InvoiceError when the invoice cannot be decoded or is for another network. DecodeInvoice checks
// neither the expiry nor the amount.
func DecodeInvoice(s string, network bolt11.Network) (bolt11.Invoice, error) {
	inv, err := bolt11.Decode(s)
	if err != nil {
		return bolt11.Invoice{}, invoiceErrorf("%v", err)
	}
	if inv.Network != network {
		return bolt11.Invoice{}, invoiceErrorf("it is for %s, the wallet is on %s", inv.Network, network)
	}
	return inv, nil
}

package lightning

import (
	"context"

	"github.com/lightningnetwork/lnd/lnrpc"

	"sluice.example/sluice/l402"
)

// ChannelBalance is the money in a node's open channels, in msat. Neither side includes amounts in
// flight.
type ChannelBalance struct {
	Local  l402.Msat // what this node can send, channel reserves included
	Remote l402.Msat // what this node can receive, channel reserves included
}

// Balance returns the sum over the node's channels. It needs the right offchain:read.
func (c *Client) Balance(ctx context.Context) (ChannelBalance, error) {
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	b, err := c.ln.ChannelBalance(ctx, &lnrpc.ChannelBalanceRequest{})
	if err != nil {
		return ChannelBalance{}, wrap("channel balance", err)
	}
	return ChannelBalance{
		Local:  l402.Msat(b.GetLocalBalance().GetMsat()),
		Remote: l402.Msat(b.GetRemoteBalance().GetMsat()),
	}, nil
}

// NodeInfo describes a node.
type NodeInfo struct {
	PubKey  string // compressed public key of the node, hex
	Alias   string
	Network string // "mainnet", "testnet", "regtest", …
	Synced  bool   // the node is in sync with the chain
	Height  uint32 // of the best block that the node knows
}

// Info returns the node's description. It needs the right info:read.
func (c *Client) Info(ctx context.Context) (NodeInfo, error) {
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	info, err := c.ln.GetInfo(ctx, &lnrpc.GetInfoRequest{})
	if err != nil {
		return NodeInfo{}, wrap("get info", err)
	}
	n := NodeInfo{PubKey: info.IdentityPubkey, Alias: info.Alias, Synced: info.SyncedToChain, Height: info.BlockHeight}
	if len(info.Chains) > 0 {
		n.Network = info.Chains[0].Network
	}
	return n, nil
}

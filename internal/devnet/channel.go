package devnet

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"strings"

	"github.com/lightningnetwork/lnd/lnrpc"
	"github.com/lightningnetwork/lnd/lnrpc/routerrpc"
)

const (
	// channelSats is the size of the channel in satoshis: 1 BTC.
	channelSats = 100_000_000
	// pushedSats is the gateway's part of the channel in satoshis, so that the gateway can pay too.
	pushedSats = 30_000_000
	// segwitBlocks is how many blocks are mined first. Regtest activates segwit and taproot after
	// 432 blocks, and btcd refuses the funding transaction before that.
	segwitBlocks = 450
	// maturityBlocks is how many blocks make the first coins spendable.
	maturityBlocks = 101
	// confirmBlocks is how many blocks confirm the funding transaction, so that the nodes can
	// announce the channel.
	confirmBlocks = 6
)

// makeWallet creates the agent's wallet from the key to whose address btcd mines.
func (n *Network) makeWallet(ctx context.Context, miner minerWallet, password []byte) error {
	if err := n.Agent.awaitState(ctx, lnrpc.WalletState_NON_EXISTING); err != nil {
		return err
	}
	conn, err := n.Agent.bare()
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = lnrpc.NewWalletUnlockerClient(conn).InitWallet(ctx, &lnrpc.InitWalletRequest{
		WalletPassword:                     password,
		ExtendedMasterKey:                  miner.rootKey,
		ExtendedMasterKeyBirthdayTimestamp: uint64(miner.birthday.Unix()),
	})
	if err != nil {
		return fmt.Errorf("make the agent's wallet: %w", err)
	}
	return nil
}

// fund asks the agent for its first address, which must be the address that btcd mines to. Then it
// waits until the coins can be spent and both nodes know the chain.
func (n *Network) fund(ctx context.Context, miner minerWallet) error {
	agent, _ := n.Agent.rpc()
	address, err := agent.NewAddress(ctx, &lnrpc.NewAddressRequest{Type: lnrpc.AddressType_WITNESS_PUBKEY_HASH})
	if err != nil {
		return fmt.Errorf("ask the agent for an address: %w", err)
	}
	if address.Address != miner.address {
		return fmt.Errorf("the agent's first address is %s, but %s was mined to", address.Address, miner.address)
	}
	if err := n.Mine(ctx, maturityBlocks); err != nil {
		return err
	}
	for _, node := range []*Node{n.Gateway, n.Agent} {
		if err := node.follow(ctx); err != nil {
			return err
		}
	}
	return until(ctx, "the agent's coins can be spent", n.Agent.running(), func(ctx context.Context) error {
		balance, err := agent.WalletBalance(ctx, &lnrpc.WalletBalanceRequest{})
		if err != nil {
			return err
		}
		if balance.ConfirmedBalance < 2*channelSats {
			return fmt.Errorf("it has %d sat", balance.ConfirmedBalance)
		}
		return nil
	})
}

// follow waits until the node knows the chain, and stores the node's public key.
func (n *Node) follow(ctx context.Context) error {
	client, _ := n.rpc()
	return until(ctx, "the "+n.Name+" node follows the chain", n.running(), func(ctx context.Context) error {
		info, err := client.GetInfo(ctx, &lnrpc.GetInfoRequest{})
		if err != nil {
			return err
		}
		if !info.SyncedToChain || info.BlockHeight < segwitBlocks+maturityBlocks {
			return fmt.Errorf("it is at block %d", info.BlockHeight)
		}
		n.PubKey = info.IdentityPubkey
		return nil
	})
}

// openChannel opens the channel from the agent to the gateway, and waits until payments can pass in
// both directions.
func (n *Network) openChannel(ctx context.Context) error {
	if err := n.connectPeers(ctx); err != nil {
		return err
	}
	gatewayKey, err := hex.DecodeString(n.Gateway.PubKey)
	if err != nil {
		return fmt.Errorf("the gateway's node key: %w", err)
	}
	agent, _ := n.Agent.rpc()
	err = until(ctx, "the agent opens the channel", n.Agent.running(), func(ctx context.Context) error {
		_, err := agent.OpenChannelSync(ctx, &lnrpc.OpenChannelRequest{
			NodePubkey: gatewayKey, LocalFundingAmount: channelSats, PushSat: pushedSats, SatPerVbyte: 2,
		})
		return err
	})
	if err != nil {
		return err
	}
	if err := n.Mine(ctx, confirmBlocks); err != nil {
		return err
	}
	return n.awaitChannel(ctx)
}

// connectPeers connects the agent to the gateway.
func (n *Network) connectPeers(ctx context.Context) error {
	agent, _ := n.Agent.rpc()
	return until(ctx, "the nodes are connected", n.Agent.running(), func(ctx context.Context) error {
		_, err := agent.ConnectPeer(ctx, &lnrpc.ConnectPeerRequest{
			Addr: &lnrpc.LightningAddress{Pubkey: n.Gateway.PubKey, Host: n.Gateway.P2P},
		})
		if err != nil && strings.Contains(err.Error(), "already connected") {
			return nil
		}
		return err
	})
}

// awaitChannel waits until a payment could pass in either direction. It moves no money and settles
// no invoice, so that the nodes' records show only what their users did.
func (n *Network) awaitChannel(ctx context.Context) error {
	if err := n.connectPeers(ctx); err != nil {
		return err
	}
	for _, hop := range []struct{ from, to *Node }{{n.Agent, n.Gateway}, {n.Gateway, n.Agent}} {
		what := fmt.Sprintf("a payment passes from the %s to the %s", hop.from.Name, hop.to.Name)
		err := until(ctx, what, hop.from.running(), func(ctx context.Context) error {
			return probe(ctx, hop.from, hop.to)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// probe sends a payment to a hash for which the receiver has no invoice. When the receiver refuses
// it, a payment can reach the receiver.
func probe(ctx context.Context, from, to *Node) error {
	_, router := from.rpc()
	dest, err := hex.DecodeString(to.PubKey)
	if err != nil {
		return err
	}
	hash := make([]byte, 32)
	rand.Read(hash)
	stream, err := router.SendPaymentV2(ctx, &routerrpc.SendPaymentRequest{
		Dest: dest, AmtMsat: 1000, PaymentHash: hash, FinalCltvDelta: 40, TimeoutSeconds: 5, NoInflightUpdates: true,
	})
	if err != nil {
		return err
	}
	for {
		update, err := stream.Recv()
		if err != nil {
			return err
		}
		if update.FailureReason == lnrpc.PaymentFailureReason_FAILURE_REASON_INCORRECT_PAYMENT_DETAILS {
			return nil
		}
		if update.Status == lnrpc.Payment_FAILED {
			return fmt.Errorf("probe: %s", update.FailureReason)
		}
	}
}

// bakeSeller writes a macaroon that has only the rights that a seller needs.
func (n *Node) bakeSeller(ctx context.Context) error {
	client, _ := n.rpc()
	baked, err := client.BakeMacaroon(ctx, &lnrpc.BakeMacaroonRequest{Permissions: []*lnrpc.MacaroonPermission{
		{Entity: "invoices", Action: "read"}, {Entity: "invoices", Action: "write"}, {Entity: "info", Action: "read"},
	}})
	if err != nil {
		return fmt.Errorf("bake the %s node's selling macaroon: %w", n.Name, err)
	}
	mac, err := hex.DecodeString(baked.Macaroon)
	if err != nil {
		return fmt.Errorf("bake the %s node's selling macaroon: %w", n.Name, err)
	}
	return os.WriteFile(n.InvoiceMacaroonPath, mac, 0o600)
}

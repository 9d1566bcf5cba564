package devnet

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/lightningnetwork/lnd/lnrpc"
)

// RebuildGateway makes the gateway's node anew, as an owner does from the seed after the disk is
// lost. The wallet, the node key, the addresses and the credentials remain the same. The invoices,
// payments and channels are gone, and the node counts settlements from 1 again. The agent closes
// its side of the lost channel and opens a new channel of the same size.
//
// lnd keeps the wallet and the keys of macaroons in its chain database, and everything else in its
// graph database. Wiping the graph database therefore has the same result as a recovery from the
// seed, and the macaroons remain valid.
func (n *Network) RebuildGateway(ctx context.Context) error {
	if err := n.rebuildGateway(ctx); err != nil {
		return fmt.Errorf("rebuild the gateway's node: %w", err)
	}
	return nil
}

func (n *Network) rebuildGateway(ctx context.Context) error {
	if err := n.Gateway.Stop(); err != nil {
		return err
	}
	if err := n.abandonChannels(ctx); err != nil {
		return err
	}
	for _, folder := range []string{"graph", "watchtower"} {
		if err := os.RemoveAll(filepath.Join(n.Gateway.Dir, "data", folder)); err != nil {
			return err
		}
	}
	if err := n.Gateway.launch(); err != nil {
		return err
	}
	if err := n.Gateway.ready(ctx); err != nil {
		return err
	}
	key := n.Gateway.PubKey
	if err := n.Gateway.follow(ctx); err != nil {
		return err
	}
	if n.Gateway.PubKey != key {
		return fmt.Errorf("it has the key %s instead of %s", n.Gateway.PubKey, key)
	}
	return n.openChannel(ctx)
}

// abandonChannels makes the agent close all its channels without the help of the other node.
func (n *Network) abandonChannels(ctx context.Context) error {
	agent, _ := n.Agent.rpc()
	open, err := agent.ListChannels(ctx, &lnrpc.ListChannelsRequest{})
	if err != nil {
		return fmt.Errorf("list the agent's channels: %w", err)
	}
	for _, channel := range open.Channels {
		point, err := channelPoint(channel.ChannelPoint)
		if err != nil {
			return err
		}
		stream, err := agent.CloseChannel(ctx, &lnrpc.CloseChannelRequest{ChannelPoint: point, Force: true})
		if err == nil {
			_, err = stream.Recv() // the first message says that the closing transaction is published
		}
		if err != nil {
			return fmt.Errorf("close channel %s: %w", channel.ChannelPoint, err)
		}
	}
	return n.Mine(ctx, confirmBlocks)
}

// channelPoint reads a text of the form "transaction id:output index".
func channelPoint(s string) (*lnrpc.ChannelPoint, error) {
	txid, index, _ := strings.Cut(s, ":")
	output, err := strconv.ParseUint(index, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("channel point %q: %w", s, err)
	}
	return &lnrpc.ChannelPoint{
		FundingTxid: &lnrpc.ChannelPoint_FundingTxidStr{FundingTxidStr: txid}, OutputIndex: uint32(output),
	}, nil
}

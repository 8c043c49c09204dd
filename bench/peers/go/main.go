// SPDX-License-Identifier: GPL-3.0-or-later

// The go-libp2p relay of the benches: TCP, Noise, yamux, circuit relay v2 with every limit lifted,
// identify and ping as every host has them. It uses all usable cores, as the Go runtime does.
//
//	bench-relay-go [-buffer BYTES] HOST PORT
//
// Says `relay address: MULTIADDR` once it listens.
package main

import (
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
)

const lots = 1 << 20

func main() {
	// The library's own default is 2048; a larger copy buffer is the one knob that makes it faster.
	buffer := flag.Int("buffer", relay.DefaultResources().BufferSize, "bytes per direction of a circuit")
	flag.Parse()
	if flag.NArg() != 2 {
		fmt.Fprintln(os.Stderr, "usage: bench-relay-go [-buffer BYTES] HOST PORT")
		os.Exit(2)
	}
	h, err := libp2p.New(
		libp2p.ListenAddrStrings(fmt.Sprintf("/ip4/%s/tcp/%s", flag.Arg(0), flag.Arg(1))),
		libp2p.Transport(tcp.NewTCPTransport),
		libp2p.Security(noise.ID, noise.New),
		libp2p.ResourceManager(&network.NullResourceManager{}),
		libp2p.ConnectionManager(connmgr.NullConnMgr{}),
		libp2p.DisableMetrics(),
		libp2p.DisableRelay(),
	)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	_, err = relay.New(h, relay.WithResources(relay.Resources{
		Limit:                  nil, // unlimited
		ReservationTTL:         time.Hour,
		MaxReservations:        lots,
		MaxCircuits:            lots,
		BufferSize:             *buffer,
		MaxReservationsPerPeer: lots,
		MaxReservationsPerIP:   lots,
		MaxReservationsPerASN:  lots,
	}))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for _, addr := range h.Addrs() {
		fmt.Printf("relay address: %s/p2p/%s\n", addr, h.ID())
	}
	select {}
}

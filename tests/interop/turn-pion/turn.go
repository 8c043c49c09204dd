package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/pion/turn/v5"
)

const (
	datagrams = 500
	patience  = 10 * time.Second
)

// dial makes a TURN client; urls is turn:HOST:PORT?transport=udp|tcp with an address for HOST.
func dial(at server) (*turn.Client, error) {
	host, query, _ := strings.Cut(strings.TrimPrefix(at.URLs, "turn:"), "?")
	var conn net.PacketConn
	if query == "transport=tcp" {
		tcp, err := net.Dial("tcp", host)
		if err != nil {
			return nil, err
		}
		conn = turn.NewSTUNConn(tcp)
	} else {
		network, any := "udp4", "0.0.0.0:0"
		if strings.HasPrefix(host, "[") {
			network, any = "udp6", "[::]:0"
		}
		udp, err := net.ListenPacket(network, any)
		if err != nil {
			return nil, err
		}
		conn = udp
	}
	config := &turn.ClientConfig{STUNServerAddr: host, TURNServerAddr: host, Conn: conn,
		Username: at.Username, Password: at.Credential}
	switch at.Family {
	case 4:
		config.RequestedAddressFamily = turn.RequestedAddressFamilyIPv4
	case 6:
		config.RequestedAddressFamily = turn.RequestedAddressFamilyIPv6
	}
	client, err := turn.NewClient(config)
	if err != nil {
		return nil, err
	}
	return client, client.Listen()
}

// exchangeDatagrams sends datagrams of many lengths both ways between two relayed addresses. The
// first go by Send indications until the channel is bound.
func exchangeDatagrams(at server) (event, error) {
	var relays [2]net.PacketConn
	for i := range relays {
		client, err := dial(at)
		if err != nil {
			return nil, err
		}
		defer client.Close()
		if i == 0 && !strings.HasSuffix(at.URLs, "tcp") {
			mapped, err := client.SendBindingRequest()
			if err != nil {
				return nil, err
			}
			say(event{"ev": "mapped", "addr": mapped.String()})
		}
		if relays[i], err = client.Allocate(); err != nil {
			return nil, err
		}
		defer relays[i].Close()
	}
	for i, relay := range relays { // opens the permission in the other's way
		if _, err := relay.WriteTo([]byte("open"), relays[1-i].LocalAddr()); err != nil {
			return nil, err
		}
	}
	arrived := 0
	for n := range datagrams {
		from, to := relays[n%2], relays[1-n%2]
		sent := make([]byte, 5+n*3%1200)
		_, _ = rand.Read(sent)
		if _, err := from.WriteTo(sent, to.LocalAddr()); err != nil {
			return nil, fmt.Errorf("datagram %d: %w", n, err)
		}
		got, err := receive(to, from.LocalAddr())
		if err != nil {
			return nil, fmt.Errorf("datagram %d of %d bytes: %w", n, len(sent), err)
		}
		if !bytes.Equal(sent, got) {
			return nil, fmt.Errorf("datagram %d: %d bytes differ from the %d sent", n, len(got), len(sent))
		}
		arrived++
	}
	return event{"ev": "done", "arrived": arrived,
		"relays": []string{relays[0].LocalAddr().String(), relays[1].LocalAddr().String()}}, nil
}

func receive(at net.PacketConn, from net.Addr) ([]byte, error) {
	buffer := make([]byte, 2048)
	for {
		if err := at.SetReadDeadline(time.Now().Add(patience)); err != nil {
			return nil, err
		}
		n, source, err := at.ReadFrom(buffer)
		if err != nil {
			return nil, err
		}
		if source.String() != from.String() {
			return nil, fmt.Errorf("from %s instead of %s", source, from)
		}
		if string(buffer[:n]) != "open" {
			return buffer[:n], nil
		}
	}
}

// exchangeStreams connects one RFC 6062 allocation to another and sends both ways at once.
func exchangeStreams(at server) (event, error) {
	active, err := dial(at)
	if err != nil {
		return nil, err
	}
	defer active.Close()
	passive, err := dial(at)
	if err != nil {
		return nil, err
	}
	defer passive.Close()
	from, err := active.AllocateTCP()
	if err != nil {
		return nil, err
	}
	defer from.Close()
	to, err := passive.AllocateTCP()
	if err != nil {
		return nil, err
	}
	defer to.Close()
	if err := passive.CreatePermission(from.Addr()); err != nil {
		return nil, err
	}
	accepted := make(chan net.Conn, 1)
	failed := make(chan error, 4)
	go func() {
		conn, err := to.AcceptTCP()
		if err != nil {
			failed <- err
			return
		}
		accepted <- conn
	}()
	dialed, err := from.DialTCP("tcp", nil, to.Addr().(*net.TCPAddr))
	if err != nil {
		return nil, err
	}
	defer dialed.Close()
	var other net.Conn
	select {
	case other = <-accepted:
	case err := <-failed:
		return nil, err
	case <-time.After(patience):
		return nil, fmt.Errorf("no ConnectionAttempt")
	}
	defer other.Close()
	return move(dialed, other, at.Bytes, failed)
}

func move(a, b net.Conn, size int64, failed chan error) (event, error) {
	sums := make(chan [2]string, 2)
	one := func(from, to net.Conn) {
		sent, got := sha256.New(), sha256.New()
		written := make(chan struct{})
		go func() {
			defer close(written)
			if _, err := io.CopyN(io.MultiWriter(sent, from), rand.Reader, size); err != nil {
				failed <- err
			}
		}()
		_ = to.SetReadDeadline(time.Now().Add(2 * patience))
		if _, err := io.CopyN(got, to, size); err != nil {
			failed <- err
			return
		}
		<-written
		sums <- [2]string{hex.EncodeToString(sent.Sum(nil)), hex.EncodeToString(got.Sum(nil))}
	}
	go one(a, b)
	go one(b, a)
	for range 2 {
		select {
		case err := <-failed:
			return nil, err
		case pair := <-sums:
			if pair[0] != pair[1] {
				return nil, fmt.Errorf("hashes differ")
			}
		}
	}
	return event{"ev": "done", "bytes": 2 * size}, nil
}

// The go-libp2p client of the interoperability tests: a line protocol on stdin, JSON lines on
// stdout, as tests/interop/README.md describes it.
package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
)

const (
	xferProtocol = protocol.ID("/sluice/xfer/1")
	chunkBytes   = 64 << 10
	// The tests bound every wait themselves; this only ends a client whose driver is gone.
	commandTimeout = 120 * time.Second
)

var (
	printMu  sync.Mutex
	statusRe = regexp.MustCompile(`\((\d{3})\)`)
)

func emit(ev string, fields map[string]any) {
	if fields == nil {
		fields = map[string]any{}
	}
	fields["ev"] = ev
	line, err := json.Marshal(fields)
	if err != nil {
		panic(err)
	}
	printMu.Lock()
	defer printMu.Unlock()
	os.Stdout.Write(append(line, '\n'))
}

// The relay's status, if the error carries one: a number from the reservation or from the text of
// a failed circuit dial, 0 if there is none.
func statusOf(err error) int {
	var refused client.ReservationError
	if errors.As(err, &refused) {
		return int(refused.Status)
	}
	if m := statusRe.FindStringSubmatch(err.Error()); m != nil {
		n, _ := strconv.Atoi(m[1])
		return n
	}
	return 0
}

func fail(cmd string, err error) {
	emit("error", map[string]any{"cmd": cmd, "what": err.Error(), "status": statusOf(err)})
}

// stream is xorshift32, little-endian words: cheap in every language and without structure that a
// lost, doubled or swapped block could hide behind.
type stream struct{ x uint32 }

func newStream(seed uint32) *stream {
	if seed == 0 {
		seed = 0x9e3779b9
	}
	return &stream{seed}
}

func (s *stream) fill(buf []byte) {
	for i := 0; i+4 <= len(buf); i += 4 {
		s.x ^= s.x << 13
		s.x ^= s.x >> 17
		s.x ^= s.x << 5
		binary.LittleEndian.PutUint32(buf[i:], s.x)
	}
}

func sum(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)) }

func send(s network.Stream, total uint64, seed uint32, h hash.Hash) error {
	gen := newStream(seed)
	buf := make([]byte, chunkBytes)
	for total > 0 {
		n := uint64(len(buf))
		gen.fill(buf)
		if total < n {
			n = total
		}
		h.Write(buf[:n])
		if _, err := s.Write(buf[:n]); err != nil {
			return err
		}
		total -= n
	}
	return s.CloseWrite()
}

// exchange runs both directions at once: the dialer's seed is the sender's, the listener sends the
// complement, so that an echo cannot pass for a transfer.
func exchange(s network.Stream, role string, total uint64, seed uint32) {
	started := time.Now()
	sent, received := sha256.New(), sha256.New()
	sendErr := make(chan error, 1)
	go func() { sendErr <- send(s, total, seed, sent) }()
	n, err := io.Copy(received, s)
	if e := <-sendErr; err == nil {
		err = e
	}
	if err != nil {
		s.Reset()
		emit("error", map[string]any{"cmd": "transfer", "role": role, "what": err.Error(),
			"status": 0, "received": n})
		return
	}
	s.Close()
	emit("transferred", map[string]any{"role": role, "peer": s.Conn().RemotePeer().String(),
		"via": s.Conn().RemoteMultiaddr().String(), "sent": total, "sent_sha256": sum(sent),
		"received": n, "received_sha256": sum(received),
		"ms": time.Since(started).Milliseconds()})
}

func onTransfer(s network.Stream) {
	var head [12]byte
	if _, err := io.ReadFull(s, head[:]); err != nil {
		s.Reset()
		fail("transfer", err)
		return
	}
	exchange(s, "listener", binary.BigEndian.Uint64(head[:8]),
		^binary.BigEndian.Uint32(head[8:]))
}

func open(ctx context.Context, h host.Host, addr string) (peer.ID, error) {
	info, err := peer.AddrInfoFromString(addr)
	if err != nil {
		return "", err
	}
	ctx = network.WithAllowLimitedConn(ctx, "interop")
	return info.ID, h.Connect(ctx, *info)
}

func transfer(ctx context.Context, h host.Host, addr string, total uint64, seed uint32) {
	id, err := open(ctx, h, addr)
	if err != nil {
		fail("transfer", err)
		return
	}
	s, err := h.NewStream(network.WithAllowLimitedConn(ctx, "interop"), id, xferProtocol)
	if err != nil {
		fail("transfer", err)
		return
	}
	var head [12]byte
	binary.BigEndian.PutUint64(head[:8], total)
	binary.BigEndian.PutUint32(head[8:], seed)
	if _, err := s.Write(head[:]); err != nil {
		fail("transfer", err)
		return
	}
	exchange(s, "dialer", total, seed)
}

func reserve(ctx context.Context, h host.Host, ev, addr string) {
	info, err := peer.AddrInfoFromString(addr)
	if err == nil {
		err = h.Connect(ctx, *info)
	}
	if err != nil {
		fail(ev, err)
		return
	}
	r, err := client.Reserve(ctx, h, *info)
	if err != nil {
		fail(ev, err)
		return
	}
	addrs := []string{}
	for _, a := range r.Addrs {
		addrs = append(addrs, a.String()+"/p2p-circuit/p2p/"+h.ID().String())
	}
	fields := map[string]any{"relay": info.ID.String(), "addrs": addrs,
		"expire": r.Expiration.Unix(), "limit_s": int(r.LimitDuration.Seconds()),
		"limit_bytes": r.LimitData, "voucher": r.Voucher != nil}
	if r.Voucher != nil {
		fields["voucher_ok"] = r.Voucher.Peer == h.ID() && r.Voucher.Relay == info.ID &&
			r.Voucher.Expiration.Unix() == r.Expiration.Unix()
	}
	emit(ev, fields)
}

// gossip is made by the first subscribe: who asks for none has no such protocol.
var gossip struct {
	sync.Mutex
	sub    *pubsub.PubSub
	topics map[string]*pubsub.Topic
}

func topicOf(h host.Host, name string) (*pubsub.Topic, error) {
	gossip.Lock()
	defer gossip.Unlock()
	if gossip.sub == nil {
		sub, err := pubsub.NewGossipSub(context.Background(), h)
		if err != nil {
			return nil, err
		}
		gossip.sub, gossip.topics = sub, map[string]*pubsub.Topic{}
	}
	if topic := gossip.topics[name]; topic != nil {
		return topic, nil
	}
	topic, err := gossip.sub.Join(name)
	if err == nil {
		gossip.topics[name] = topic
	}
	return topic, err
}

func subscribe(h host.Host, name string) error {
	topic, err := topicOf(h, name)
	if err != nil {
		return err
	}
	events, err := topic.EventHandler()
	if err != nil {
		return err
	}
	sub, err := topic.Subscribe()
	if err != nil {
		return err
	}
	go func() {
		for {
			e, err := events.NextPeerEvent(context.Background())
			if err != nil {
				return
			}
			if e.Type == pubsub.PeerJoin {
				emit("subscribed", map[string]any{"peer": e.Peer.String(), "topic": name})
			}
		}
	}()
	go func() {
		for {
			m, err := sub.Next(context.Background())
			if err != nil {
				return
			}
			if m.GetFrom() == h.ID() {
				continue
			}
			hash := sha256.Sum256(m.Data)
			emit("gossip", map[string]any{"topic": name, "author": m.GetFrom().String(),
				"from": m.ReceivedFrom.String(), "bytes": len(m.Data),
				"sha256": hex.EncodeToString(hash[:])})
		}
	}()
	emit("subscribing", map[string]any{"topic": name})
	return nil
}

func run(h host.Host, words []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	switch {
	case words[0] == "reserve" && len(words) == 2:
		reserve(ctx, h, "reserved", words[1])
	case words[0] == "renew" && len(words) == 2: // go renews where the application says so
		reserve(ctx, h, "renewed", words[1])
	case words[0] == "dial" && len(words) == 2:
		id, err := open(ctx, h, words[1])
		if err != nil {
			fail("dial", err)
			return nil
		}
		conns := h.Network().ConnsToPeer(id)
		fields := map[string]any{"peer": id.String()}
		if len(conns) > 0 {
			fields["via"] = conns[0].RemoteMultiaddr().String()
			fields["limited"] = conns[0].Stat().Limited
		}
		emit("dialed", fields)
	case words[0] == "transfer" && len(words) == 4:
		total, err1 := strconv.ParseUint(words[2], 10, 64)
		seed, err2 := strconv.ParseUint(words[3], 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		transfer(ctx, h, words[1], total, uint32(seed))
	case words[0] == "subscribe" && len(words) == 2:
		return subscribe(h, words[1])
	case words[0] == "publish-bytes" && len(words) == 4:
		n, err := strconv.Atoi(words[2])
		if err != nil {
			return err
		}
		topic, err := topicOf(h, words[1])
		if err != nil {
			return err
		}
		if err := topic.Publish(ctx, []byte(strings.Repeat(words[3], n))); err != nil {
			return err
		}
		emit("published", map[string]any{"topic": words[1]})
	case words[0] == "hangup" && len(words) == 2:
		id, err := peer.Decode(words[1])
		if err != nil {
			return err
		}
		h.Network().ClosePeer(id)
		emit("hungup", map[string]any{"peer": id.String()})
	default:
		return fmt.Errorf("unknown command: %s", strings.Join(words, " "))
	}
	return nil
}

// Which addresses a dial tries must be the test's choice alone, so the host listens nowhere; the
// relay transport then has to be asked for by name.
func newHost() (host.Host, error) {
	options := []libp2p.Option{libp2p.NoListenAddrs, libp2p.EnableRelay(),
		libp2p.Transport(tcp.NewTCPTransport), libp2p.UserAgent("interop-go"),
		libp2p.ResourceManager(&network.NullResourceManager{})}
	if os.Getenv("INTEROP_SECURITY") != "any" {
		options = append(options, libp2p.Security(noise.ID, noise.New))
	}
	return libp2p.New(options...)
}

func main() {
	h, err := newHost()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	h.SetStreamHandler(xferProtocol, onTransfer)
	h.Network().Notify(&network.NotifyBundle{
		ConnectedF: func(_ network.Network, c network.Conn) {
			emit("connected", map[string]any{"peer": c.RemotePeer().String(),
				"via": c.RemoteMultiaddr().String()})
		},
		DisconnectedF: func(_ network.Network, c network.Conn) {
			emit("disconnected", map[string]any{"peer": c.RemotePeer().String(),
				"via": c.RemoteMultiaddr().String()})
		},
	})
	emit("id", map[string]any{"peer": h.ID().String(), "client": "go"})
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) == 0 {
			continue
		}
		if words[0] == "quit" {
			break
		}
		go func() {
			if err := run(h, words); err != nil {
				emit("error", map[string]any{"cmd": words[0], "what": err.Error(), "status": 0})
			}
		}()
	}
	h.Close()
}

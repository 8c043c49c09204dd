package main

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"

	"github.com/pion/webrtc/v4"
)

const (
	message = 16384
	queued  = 1 << 20
)

type peer struct {
	pc       *webrtc.PeerConnection
	channel  *webrtc.DataChannel
	room     chan struct{}
	arrived  chan int
	hash     hash.Hash // of what arrived; written by the channel's reader before it says so
	received int
}

func newPeer(at server) (*peer, error) {
	config := webrtc.Configuration{}
	if at.URLs != "" {
		config.ICEServers = []webrtc.ICEServer{{URLs: []string{at.URLs}, Username: at.Username,
			Credential: at.Credential}}
	}
	if at.Policy == "relay" {
		config.ICETransportPolicy = webrtc.ICETransportPolicyRelay
	}
	pc, err := webrtc.NewPeerConnection(config)
	if err != nil {
		return nil, err
	}
	p := &peer{pc: pc, room: make(chan struct{}, 1), arrived: make(chan int, 1<<16),
		hash: sha256.New()}
	pc.OnDataChannel(p.use)
	return p, nil
}

func (p *peer) use(channel *webrtc.DataChannel) {
	p.channel = channel
	channel.SetBufferedAmountLowThreshold(queued / 2)
	channel.OnBufferedAmountLow(func() {
		select {
		case p.room <- struct{}{}:
		default:
		}
	})
	channel.OnMessage(func(m webrtc.DataChannelMessage) {
		p.hash.Write(m.Data)
		p.arrived <- len(m.Data)
	})
	channel.OnOpen(func() { say(event{"ev": "open"}) })
}

func (p *peer) do(command string, arg json.RawMessage) (event, error) {
	var sdp string
	var size int
	if command == "transfer" {
		if err := json.Unmarshal(arg, &size); err != nil {
			return nil, err
		}
		return p.transfer(size)
	}
	if command != "offer" {
		if err := json.Unmarshal(arg, &sdp); err != nil {
			return nil, err
		}
	}
	switch command {
	case "offer":
		channel, err := p.pc.CreateDataChannel("bulk", nil)
		if err != nil {
			return nil, err
		}
		p.use(channel)
		description, err := p.pc.CreateOffer(nil)
		if err != nil {
			return nil, err
		}
		return p.describe("offer", description)
	case "answer":
		if err := p.pc.SetRemoteDescription(webrtc.SessionDescription{
			Type: webrtc.SDPTypeOffer, SDP: sdp}); err != nil {
			return nil, err
		}
		description, err := p.pc.CreateAnswer(nil)
		if err != nil {
			return nil, err
		}
		return p.describe("answer", description)
	case "accept":
		return nil, p.pc.SetRemoteDescription(webrtc.SessionDescription{
			Type: webrtc.SDPTypeAnswer, SDP: sdp})
	}
	return nil, fmt.Errorf("unknown command %q", command)
}

func (p *peer) describe(name string, description webrtc.SessionDescription) (event, error) {
	complete := webrtc.GatheringCompletePromise(p.pc)
	if err := p.pc.SetLocalDescription(description); err != nil {
		return nil, err
	}
	<-complete
	return event{"ev": name, "sdp": p.pc.LocalDescription().SDP}, nil
}

// transfer sends as many random bytes as it then waits for.
func (p *peer) transfer(size int) (event, error) {
	sent := sha256.New()
	part := make([]byte, message)
	for left := size; left > 0; left -= len(part) {
		part = part[:min(message, left)]
		_, _ = rand.Read(part)
		sent.Write(part)
		for p.channel.BufferedAmount() > queued {
			<-p.room
		}
		if err := p.channel.Send(part); err != nil {
			return nil, err
		}
	}
	for p.received < size {
		p.received += <-p.arrived
	}
	return event{"ev": "transferred", "sent": size, "sent_sha256": hex.EncodeToString(sent.Sum(nil)),
		"received": p.received, "received_sha256": hex.EncodeToString(p.hash.Sum(nil))}, nil
}

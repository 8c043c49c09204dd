// pion SERVER: one WebRTC peer, driven over stdin, one JSON object per line on stdout (see
// ../README.md). pion turn|turn-tcp SERVER: two allocations that exchange bytes, without WebRTC.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"sync"
)

type event map[string]any

type server struct {
	URLs       string `json:"urls"`
	Username   string `json:"username"`
	Credential string `json:"credential"`
	Policy     string `json:"policy"`
	Family     int    `json:"family"` // of the relayed address, 0: the server's default
	Bytes      int64  `json:"bytes"`  // of turn-tcp, each way
}

var out sync.Mutex

func say(e event) {
	out.Lock()
	defer out.Unlock()
	_ = json.NewEncoder(os.Stdout).Encode(e)
}

func main() {
	var at server
	args := os.Args[1:]
	if len(args) == 0 || len(args) > 2 || json.Unmarshal([]byte(args[len(args)-1]), &at) != nil {
		fmt.Fprintln(os.Stderr, "usage: pion [turn|turn-tcp] JSON")
		os.Exit(2)
	}
	switch args[0] {
	case "turn":
		finish(exchangeDatagrams(at))
	case "turn-tcp":
		finish(exchangeStreams(at))
	default:
		serve(newPeer(at))
	}
}

func finish(e event, err error) {
	if err != nil {
		say(event{"ev": "error", "what": err.Error()})
		os.Exit(1)
	}
	say(e)
}

func serve(p *peer, err error) {
	if err != nil {
		finish(nil, err)
	}
	say(event{"ev": "id", "client": "pion"})
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var command struct {
			Cmd string          `json:"cmd"`
			Arg json.RawMessage `json:"arg"`
		}
		if err := json.Unmarshal(lines.Bytes(), &command); err != nil {
			say(event{"ev": "error", "what": err.Error()})
			continue
		}
		if command.Cmd == "quit" {
			return
		}
		go func() {
			answer, err := p.do(command.Cmd, command.Arg)
			if err != nil {
				say(event{"ev": "error", "cmd": command.Cmd, "what": err.Error()})
			} else if answer != nil {
				say(answer)
			}
		}()
	}
}

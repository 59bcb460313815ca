// A server on the centrifuge library, the one that Centrifugo is built on: its JSON protocol on a WebSocket, its memory
// engine, and the publish request of Centrifugo's HTTP API. Every client may subscribe to every channel.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"

	"github.com/centrifugal/centrifuge"
)

// Bytes of one publish request.
const requestBytesMax = 1 << 20

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: ADDRESS:PORT")
		os.Exit(2)
	}
	if err := serve(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func serve(address string) error {
	node, err := centrifuge.New(centrifuge.Config{LogLevel: centrifuge.LogLevelError, LogHandler: log})
	if err != nil {
		return err
	}
	node.OnConnecting(func(context.Context, centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		return centrifuge.ConnectReply{Credentials: &centrifuge.Credentials{}}, nil
	})
	node.OnConnect(func(client *centrifuge.Client) {
		client.OnSubscribe(func(_ centrifuge.SubscribeEvent, answer centrifuge.SubscribeCallback) {
			answer(centrifuge.SubscribeReply{}, nil)
		})
	})
	if err := node.Run(); err != nil {
		return err
	}
	routes := http.NewServeMux()
	routes.Handle("/connection/websocket", centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{}))
	routes.HandleFunc("POST /api/publish", publish(node))
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	return http.Serve(listener, routes)
}

func log(entry centrifuge.LogEntry) {
	fmt.Fprintln(os.Stderr, entry.Message, entry.Fields)
}

func publish(node *centrifuge.Node) http.HandlerFunc {
	return func(answer http.ResponseWriter, request *http.Request) {
		var command struct {
			Channel string          `json:"channel"`
			Data    json.RawMessage `json:"data"`
		}
		body := http.MaxBytesReader(answer, request.Body, requestBytesMax)
		if err := json.NewDecoder(body).Decode(&command); err != nil {
			http.Error(answer, err.Error(), http.StatusBadRequest)
			return
		}
		if _, err := node.Publish(command.Channel, command.Data); err != nil {
			http.Error(answer, err.Error(), http.StatusInternalServerError)
			return
		}
		answer.Header().Set("Content-Type", "application/json")
		fmt.Fprint(answer, `{"result":{}}`)
	}
}

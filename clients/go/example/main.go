// Command example sends a message to a chat session service, prints the answer as it is written, leaves the stream in
// the middle, and goes on where it stopped.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	chatsessionv1 "chatsession/gen/chatsession/v1"
)

func main() {
	server := flag.String("server", envOr("CHATSESSION_SERVER", "127.0.0.1:50051"), "host:port of the service")
	model := flag.String("model", "", "model that answers; empty leaves it to the service")
	timeout := flag.Duration("timeout", 2*time.Minute, "time for all of it")
	flag.Parse()
	message := strings.Join(flag.Args(), " ")
	if message == "" {
		message = "Hello"
	}

	ctx, cancel := context.WithTimeout(context.Background(), *timeout)
	defer cancel()
	if err := run(ctx, *server, *model, message); err != nil {
		details := DetailsOf(err)
		fmt.Fprintf(os.Stderr, "%v (reason %q, retry %q)\n", err, details.Reason, details.Retry)
		os.Exit(1)
	}
}

func run(ctx context.Context, server, model, message string) error {
	conn, err := Dial(server)
	if err != nil {
		return err
	}
	defer conn.Close()
	client := chatsessionv1.NewChatSessionServiceClient(conn)

	sessionID, err := CreateSession(ctx, client, model)
	if err != nil {
		return err
	}
	answer := NewAnswer(sessionID, message)

	// A break of the stream, made here by leaving at the first text. The turn goes on without us.
	broken, leave := context.WithCancel(ctx)
	err = answer.Read(broken, client, func(text string, replaces bool) {
		show(text, replaces)
		leave()
	})
	leave()
	if err != nil && broken.Err() == nil {
		return err
	}

	// Goes on after the last cursor: nothing is lost, said twice or paid twice.
	if err := answer.Read(ctx, client, show); err != nil {
		return err
	}
	fmt.Printf("\n[%s]\n", answer.Turn.GetState())
	return nil
}

// Dial opens a channel; nothing is connected before the first call. Use credentials.NewTLS outside of a trusted network.
func Dial(target string) (*grpc.ClientConn, error) {
	return grpc.NewClient(target,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		// One connection reaches one worker only, so calls are spread over all addresses.
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`),
		// A dead connection is noticed within 80 s.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: time.Minute, Timeout: 20 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)),
	)
}

func show(text string, replaces bool) {
	if replaces {
		fmt.Print("\n[from the start]\n")
	}
	fmt.Print(text)
}

func envOr(name, fallback string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return fallback
}

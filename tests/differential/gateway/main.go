// A gateway in front of a gRPC server, with the handlers that protoc-gen-grpc-gateway made.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/grpclog"

	// So that the usual details of errors can be written.
	_ "google.golang.org/genproto/googleapis/rpc/errdetails"
)

// Filled in by the generated services.go.
var handlers []func(context.Context, *runtime.ServeMux, *grpc.ClientConn) error

func main() {
	upstream := flag.String("upstream", "", "host:port of the gRPC server")
	flag.Parse()
	// Or every bad request would be in the log.
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
	connection, err := grpc.NewClient(*upstream, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	mux := runtime.NewServeMux()
	for _, register := range handlers {
		if err := register(context.Background(), mux, connection); err != nil {
			log.Fatal(err)
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr())
	log.Fatal(http.Serve(listener, mux))
}

// gRPC of Go: many goroutines ask one server in the same process at once, on one connection. For each call both say its number, and
// on which goroutine they are. The server has few workers, so that some calls are answered by goroutines that are made for them.
package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"

	"github.com/golang/protobuf/ptypes/empty"
	"google.golang.org/grpc"
)

// The number in "goroutine 18 [running]:".
func goroutine() string {
	stack := make([]byte, 64)
	stack = stack[:runtime.Stack(stack, false)]
	return string(bytes.Fields(stack)[1])
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	server := grpc.NewServer(grpc.NumStreamWorkers(2), grpc.UnknownServiceHandler(
		func(_ interface{}, stream grpc.ServerStream) error {
			method, _ := grpc.MethodFromServerStream(stream)
			fmt.Printf("answers %s %s\n", method, goroutine())
			must(stream.RecvMsg(&empty.Empty{}))
			return stream.SendMsg(&empty.Empty{})
		}))
	// It begins when it is told to.
	bufio.NewReader(os.Stdin).ReadByte()
	go server.Serve(listener)
	client, err := grpc.Dial(listener.Addr().String(), grpc.WithInsecure())
	must(err)
	var all sync.WaitGroup
	for goes := 0; goes < 20; goes++ {
		all.Add(1)
		go func(goes int) {
			defer all.Done()
			for call := 0; call < 5; call++ {
				method := fmt.Sprintf("/calls/%d", 5*goes+call)
				fmt.Printf("asks %s %s\n", method, goroutine())
				must(client.Invoke(context.Background(), method, &empty.Empty{}, &empty.Empty{}))
			}
		}(goes)
	}
	all.Wait()
}

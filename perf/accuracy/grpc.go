// gRPC of service.go: a path is the name of a method, and messages are empty.
package main

import (
	"context"
	"crypto/tls"
	"log"
	"net"
	"net/url"

	"github.com/golang/protobuf/ptypes/empty"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// One connection to each, for all requests.
var channels = map[string]*grpc.ClientConn{}

// It connects when it is asked for the first time, or soon.
func dial(name string, target *url.URL, config *tls.Config) {
	secure := grpc.WithInsecure()
	if target.Scheme == "grpcs" {
		secure = grpc.WithTransportCredentials(credentials.NewTLS(config))
	}
	var err error
	if channels[name], err = grpc.Dial(target.Host, secure); err != nil {
		log.Fatal(err)
	}
}

func call(name, path, id string, trace []string) error {
	pairs := []string{"x-oracle-id", id}
	if len(trace) > 1 {
		pairs = append(pairs, "traceparent", next(trace))
	}
	asked := metadata.AppendToOutgoingContext(context.Background(), pairs...)
	return channels[name].Invoke(asked, path, &empty.Empty{}, &empty.Empty{}, grpc.WaitForReady(true))
}

// With workers, so many goroutines answer; else one for each call.
func serveCalls(address string, secure bool, workers uint32, certificate, key string) error {
	options := []grpc.ServerOption{grpc.UnknownServiceHandler(answer), grpc.NumStreamWorkers(workers)}
	if secure {
		own, err := credentials.NewServerTLSFromFile(certificate, key)
		if err != nil {
			return err
		}
		options = append(options, grpc.Creds(own))
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	return grpc.NewServer(options...).Serve(listener)
}

func answer(_ interface{}, stream grpc.ServerStream) error {
	method, known := grpc.MethodFromServerStream(stream)
	if !known {
		return status.Error(codes.Internal, "no method")
	}
	if err := stream.RecvMsg(&empty.Empty{}); err != nil {
		return err
	}
	parent := ""
	if head, known := metadata.FromIncomingContext(stream.Context()); known && len(head["traceparent"]) > 0 {
		parent = head["traceparent"][0]
	}
	work(method, parent)
	return stream.SendMsg(&empty.Empty{})
}

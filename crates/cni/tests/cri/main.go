// Calls one method of a container runtime's CRI: SOCKET METHOD [REQUEST], both messages as JSON.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func main() {
	if err := call(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func call(args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("usage: cri SOCKET METHOD [REQUEST]")
	}
	socket, method, text := args[0], args[1], "{}"
	if len(args) > 2 {
		text = args[2]
	}
	request, err := message(method + "Request")
	if err != nil {
		return err
	}
	answer, err := message(method + "Response")
	if err != nil {
		return err
	}
	if err := protojson.Unmarshal([]byte(text), request); err != nil {
		return err
	}
	connection, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	path := "/" + runtime.RuntimeService_ServiceDesc.ServiceName + "/" + method
	if err := connection.Invoke(ctx, path, request, answer); err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	fmt.Println(protojson.Format(answer))
	return nil
}

func message(name string) (proto.Message, error) {
	found, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName("runtime.v1." + name))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return found.New().Interface(), nil
}

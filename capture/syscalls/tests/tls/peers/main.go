// HTTPS of Go: peer server PORT, or peer client PORT PATH. The server's handler asks the plain server in the same process with
// net/http's client, and starts a goroutine. Both say on which goroutines they did what.
package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
)

const answer = "answer-of-go"

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
	role, port := os.Args[1], os.Args[2]
	if role == "client" {
		client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
		response, err := client.Get("https://127.0.0.1:" + port + os.Args[3])
		must(err)
		body, err := io.ReadAll(response.Body)
		must(err)
		fmt.Println(string(body), "client", goroutine())
		return
	}
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	go http.Serve(plain, http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		fmt.Fprint(writer, answer)
	}))
	handler := func(writer http.ResponseWriter, request *http.Request) {
		child := make(chan string)
		go func() { child <- goroutine() }()
		response, err := http.Get("http://" + plain.Addr().String() + "/inner")
		must(err)
		body, err := io.ReadAll(response.Body)
		must(err)
		response.Body.Close()
		text := fmt.Sprintf("%s handler=%s child=%s", body, goroutine(), <-child)
		writer.Header().Set("Content-Length", fmt.Sprint(len(text)))
		io.WriteString(writer, text)
	}
	server := http.Server{
		Addr:         "127.0.0.1:" + port,
		Handler:      http.HandlerFunc(handler),
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
	must(server.ListenAndServeTLS("cert.pem", "key.pem"))
}

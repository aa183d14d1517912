// Both ends of a TLS session of crypto/tls in this process's memory, without a system call between them; and go statements.
//
// Each line of input is how many rounds to make. Each is answered by a line: for each function the fewest ns that a call took.
package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math"
	"math/big"
	"net"
	"os"
	"strconv"
	"sync"
	"time"
)

const (
	message = 512
	atOnce  = 16
)

// A connection with room for what is under way, so that nobody waits who has something to read.
type end struct {
	net.Conn
	in, out chan []byte
	rest    []byte
}

func (end *end) Read(buffer []byte) (int, error) {
	if len(end.rest) == 0 {
		end.rest = <-end.in
	}
	read := copy(buffer, end.rest)
	end.rest = end.rest[read:]
	return read, nil
}

func (end *end) Write(bytes []byte) (int, error) {
	end.out <- append([]byte(nil), bytes...)
	return len(bytes), nil
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func session() (*tls.Conn, *tls.Conn) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(err)
	there, back := make(chan []byte, 4*atOnce), make(chan []byte, 4*atOnce)
	configuration := &tls.Config{
		InsecureSkipVerify: true,
		Certificates:       []tls.Certificate{{Certificate: [][]byte{certificate}, PrivateKey: key}},
	}
	client := tls.Client(&end{in: back, out: there}, configuration)
	server := tls.Server(&end{in: there, out: back}, configuration)
	done := make(chan error)
	go func() { done <- server.Handshake() }()
	must(client.Handshake())
	must(<-done)
	return client, server
}

func timed(call func() error) float64 {
	start := time.Now()
	for i := 0; i < atOnce; i++ {
		must(call())
	}
	return float64(time.Since(start).Nanoseconds()) / atOnce
}

func main() {
	client, server := session()
	buffer := make([]byte, message)
	var running sync.WaitGroup
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		rounds, err := strconv.Atoi(lines.Text())
		must(err)
		write, read, start := math.Inf(1), math.Inf(1), math.Inf(1)
		for ; rounds > 0; rounds-- {
			// The other way each time: a message that never ends has its payload left out.
			client, server = server, client
			write = math.Min(write, timed(func() error { _, err := client.Write(buffer); return err }))
			read = math.Min(read, timed(func() error { _, err := io.ReadFull(server, buffer); return err }))
			running.Add(atOnce)
			start = math.Min(start, timed(func() error { go running.Done(); return nil }))
			running.Wait()
		}
		fmt.Println(write, read, start)
	}
}

// When its input ends, sends messages of several lengths through TLS sessions with itself, and says what its calls returned: for each
// session a line of writes and one of reads.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"strings"
	"time"
)

// The longest ones go in several records.
var lengths = []int{1, 5, 1000, 16384, 40000, 2}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func read(connection net.Conn, done chan []int) {
	var returned []int
	buffer := make([]byte, 700)
	for {
		length, err := connection.Read(buffer)
		if length > 0 {
			returned = append(returned, length)
		}
		if err == io.EOF {
			done <- returned
			return
		}
		must(err)
	}
}

func session(listener net.Listener, configuration *tls.Config) {
	done := make(chan []int)
	go func() {
		connection, err := listener.Accept()
		must(err)
		read(tls.Server(connection, configuration), done)
	}()
	client, err := tls.Dial("tcp", listener.Addr().String(), configuration)
	must(err)
	var returned []int
	for number, length := range lengths {
		message := make([]byte, length)
		for i := range message {
			message[i] = byte('a' + number)
		}
		written, err := client.Write(message)
		must(err)
		returned = append(returned, written)
	}
	must(client.CloseWrite())
	fmt.Println(strings.Trim(fmt.Sprint(returned), "[]"))
	fmt.Println(strings.Trim(fmt.Sprint(<-done), "[]"))
	client.SetWriteDeadline(time.Unix(1, 0))
	if written, err := client.Write([]byte("not sent")); written != 0 || err == nil {
		os.Exit(1)
	}
}

func main() {
	io.ReadAll(os.Stdin)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS12, tls.VersionTLS13} {
		session(listener, &tls.Config{
			InsecureSkipVerify: true,
			Certificates:       []tls.Certificate{{Certificate: [][]byte{certificate}, PrivateKey: key}},
			MinVersion:         version,
			MaxVersion:         version,
		})
	}
}

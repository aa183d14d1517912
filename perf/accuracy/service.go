// A service of the suite `accuracy`: service STYLE PORT LOG [NAME=URL]...; see service.py for what paths mean.
// STYLE is http, https, http2 over TLS, grpc, grpcs over TLS, or grpc-workers.
package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"math/rand"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

var (
	targets = map[string]*url.URL{}
	client  *http.Client
	records *os.File
	idle    = make(chan net.Conn, 1024)
	jobs    = make(chan func())
	grown   = make(chan func())
	started = time.Now()
)

// In the pool that is there from the beginning.
const workers = 8

func main() {
	style, port := os.Args[1], os.Args[2]
	var err error
	if records, err = os.OpenFile(os.Args[3], os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644); err != nil {
		log.Fatal(err)
	}
	for _, target := range os.Args[4:] {
		name, address, _ := strings.Cut(target, "=")
		if targets[name], err = url.Parse(address); err != nil {
			log.Fatal(err)
		}
	}
	certificate, key := os.Getenv("CERTIFICATE"), os.Getenv("KEY")
	roots := x509.NewCertPool()
	pem, err := os.ReadFile(certificate)
	if err != nil {
		log.Fatal(err)
	}
	roots.AppendCertsFromPEM(pem)
	credentials := tls.Config{RootCAs: roots}
	for name, target := range targets {
		if strings.HasPrefix(target.Scheme, "grpc") {
			dial(name, target, &credentials)
		}
	}
	for k := 0; k < workers; k++ {
		go func() { takeJobs(jobs, <-jobs) }()
	}
	client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256, TLSClientConfig: &credentials, ForceAttemptHTTP2: true}}
	if strings.HasPrefix(style, "grpc") {
		answerers := map[string]uint32{"grpc-workers": 4}[style]
		log.Fatal(serveCalls(os.Getenv("LISTEN")+":"+port, style == "grpcs", answerers, certificate, key))
	}
	server := &http.Server{Addr: os.Getenv("LISTEN") + ":" + port, Handler: http.HandlerFunc(serve)}
	if style != "http2" {
		server.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){}
	}
	if style != "http" {
		log.Fatal(server.ListenAndServeTLS(certificate, key))
	}
	log.Fatal(server.ListenAndServe())
}

func serve(response http.ResponseWriter, request *http.Request) {
	id := work(request.URL.Path, request.Header.Get("traceparent"))
	fmt.Fprintf(response, "done %s\n", id)
}

// Does what a path means, and gives the id that it ends with.
func work(asked, parent string) string {
	path := strings.Split(asked[1:], "/")
	hop := append(strings.Split(path[0], "."), "0", "")
	// No room behind it, where calls at the same time would put their ids.
	id, rest := path[len(path)-1], path[1:len(path)-1:len(path)-1]
	note("served", id, "-")
	count, _ := strconv.Atoi(hop[1])
	trace := strings.Split(parent, "-")
	call := func(k int) {
		own := fmt.Sprintf("%s.%d", id, k+1)
		note("called", own, id)
		if err := do(hop[2], strings.Join(append([]string{""}, append(rest, own)...), "/"), own, trace); err != nil {
			log.Print(err)
		}
	}
	switch hop[0] {
	case "seq":
		for k := 0; k < count; k++ {
			call(k)
		}
	case "all":
		var all sync.WaitGroup
		all.Add(count)
		for k := 0; k < count; k++ {
			go func(k int) { defer all.Done(); call(k) }(k)
		}
		all.Wait()
	case "pool":
		for k := 0; k < count; k++ {
			job, done := waited(call, k)
			jobs <- job
			<-done
		}
	case "grow":
		for k := 0; k < count; k++ {
			job, done := waited(call, k)
			select {
			case grown <- job:
			default:
				go takeJobs(grown, job)
			}
			<-done
		}
	}
	return id
}

// A job for a pool, and what tells that it is done.
func waited(call func(int), k int) (func(), chan struct{}) {
	done := make(chan struct{})
	return func() { call(k); close(done) }, done
}

// A worker of a pool: it lives on when the first job is done.
func takeJobs(from chan func(), job func()) {
	for ; ; job = <-from {
		job()
	}
}

func do(name, path, id string, trace []string) error {
	target := targets[name]
	switch target.Scheme {
	case "redis":
		return redis(target, id)
	case "grpc", "grpcs":
		return call(name, path, id, trace)
	}
	request, err := http.NewRequest("GET", target.Scheme+"://"+target.Host+path, nil)
	if err != nil {
		return err
	}
	request.Header.Set("x-oracle-id", id)
	if len(trace) > 1 {
		request.Header.Set("traceparent", next(trace))
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

// What a call says of its trace.
func next(trace []string) string {
	return fmt.Sprintf("00-%s-%016x-01", trace[1], rand.Uint64())
}

// A connection is taken from a pool and given back.
func redis(target *url.URL, id string) (err error) {
	var connection net.Conn
	select {
	case connection = <-idle:
	default:
		if connection, err = net.Dial("tcp", target.Host); err != nil {
			return err
		}
	}
	fmt.Fprintf(connection, "*2\r\n$3\r\nGET\r\n$%d\r\nk:%s\r\n", len(id)+2, id)
	_, err = bufio.NewReader(connection).ReadString('\n')
	idle <- connection
	return err
}

func note(what, id, parent string) {
	fmt.Fprintf(records, "%s %s %s %d %d %d\n", what, id, parent, os.Getpid(), syscall.Gettid(), time.Since(started).Nanoseconds())
}

"""A service of the suite `accuracy`: service.py STYLE PORT LOG [NAME=URL]...

`GET /HOP/.../ID`: the first hop is what is done here, `MODE.COUNT.NAME` or `MODE`; the others go on, with the ids ID.1, ID.2, ..., to
NAME, which is an HTTP service or a Redis. STYLE is how connections are served, MODE how calls are made. Every request and every call
is logged with its id and its parent's: that is the truth which wirespan's links are compared with.
"""

import asyncio
import concurrent.futures
import http.client
import http.server
import itertools
import os
import random
import socket
import socketserver
import ssl
import sys
import tempfile
import threading
import time
import urllib.parse

STYLE, PORT, LOG = sys.argv[1:4]
TARGETS = {name: urllib.parse.urlsplit(url) for name, url in (argument.split("=", 1) for argument in sys.argv[4:])}
LISTEN, CERTIFICATE, KEY, TLS = (os.environ.get(name) for name in ("LISTEN", "CERTIFICATE", "KEY", "TLS"))
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}

log_file = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
local = threading.local()
pool = concurrent.futures.ThreadPoolExecutor(8)


def log(what, id, parent="-"):
    os.write(log_file, f"{what} {id} {parent} {os.getpid()} {threading.get_native_id()} {time.monotonic_ns()}\n".encode())


def server_tls():
    if not TLS:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = VERSIONS[TLS]
    context.load_cert_chain(CERTIFICATE, KEY)
    return context


def client_tls(target):
    return ssl.create_default_context(cafile=CERTIFICATE) if target.scheme == "https" else None


class Request:
    """What a path asks for, and the headers that go on to the calls."""

    def __init__(self, path, traceparent):
        hop, *self.rest, self.id = path.strip("/").split("/")
        self.mode, count, self.target = (hop.split(".") + ["0", ""])[:3]
        self.count = int(count)
        self.trace = traceparent and traceparent.split("-")[1]
        log("served", self.id)

    def calls(self):
        return [f"{self.id}.{k + 1}" for k in range(self.count)]

    def path(self, id):
        return "/" + "/".join([*self.rest, id])

    def headers(self, id):
        headers = {"x-oracle-id": id}
        if self.trace:
            headers["traceparent"] = f"00-{self.trace}-{random.getrandbits(64):016x}-01"
        return headers


# Calls that block: one connection per thread and target, as requests' sessions and thread-local clients have.


def call(request, id):
    log("called", id, request.id)
    target = TARGETS[request.target]
    if target.scheme == "redis":
        redis_commands(target, [id])
    elif target.scheme == "dns":
        socket.getaddrinfo(f"{id}.oracle", 80, type=socket.SOCK_STREAM)
    else:
        connection = connections().get(target)
        if not connection:
            kind = http.client.HTTPSConnection if target.scheme == "https" else http.client.HTTPConnection
            tls = {"context": client_tls(target)} if target.scheme == "https" else {}
            connection = connections()[target] = kind(target.hostname, target.port, **tls)
        connection.request("GET", request.path(id), headers=request.headers(id))
        connection.getresponse().read()


def connections():
    # Those of before a fork are the parent's.
    if getattr(local, "process", None) != os.getpid():
        local.process, local.connections = os.getpid(), {}
    return local.connections


def redis_commands(target, ids):
    stream = connections().get(target)
    if not stream:
        connected = socket.create_connection((target.hostname, target.port))
        stream = connections()[target] = (connected, connected.makefile("rb"))
    connected, answers = stream
    connected.sendall(b"".join(redis_get(id) for id in ids))
    for _ in ids:
        answers.readline()


def redis_get(id):
    key = f"k:{id}"
    return f"*2\r\n$3\r\nGET\r\n${len(key)}\r\n{key}\r\n".encode()


def pipeline(request):
    for id in request.calls():
        log("called", id, request.id)
    redis_commands(TARGETS[request.target], request.calls())


def sequence(request):
    for id in request.calls():
        call(request, id)


def from_pool(request):
    for done in [pool.submit(call, request, id) for id in request.calls()]:
        done.result()


def nap(request):
    time.sleep(random.uniform(0, request.count / 1000))


MODES = {"leaf": lambda _: None, "seq": sequence, "pool": from_pool, "pipe": pipeline, "nap": nap}


class Handler(http.server.BaseHTTPRequestHandler):
    """One thread or process for each connection."""

    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self):
        request = Request(self.path, self.headers.get("traceparent"))
        MODES[request.mode](request)
        self.answer(f"done {request.id}\n".encode())

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class ByteByByte(Handler):
    """Without a buffer, every byte of a request is a read of its own."""

    rbufsize = 0


class Peeking(Handler):
    """Looks at the bytes before it reads them."""

    def handle_one_request(self):
        self.connection.recv(4096, socket.MSG_PEEK)
        super().handle_one_request()


class Duplicating(Handler):
    """Answers through another descriptor of the connection."""

    def setup(self):
        spare = os.open("/dev/null", os.O_RDONLY)
        os.dup2(self.request.fileno(), spare)
        self.request = socket.socket(fileno=spare)
        super().setup()

    def finish(self):
        super().finish()
        self.request.close()


class Vectored(Handler):
    """Answers in one call with 64 buffers."""

    def answer(self, body):
        head = [b"HTTP/1.1 200 OK\r\n", b"Content-Length: %d\r\n\r\n" % (len(body) * 62)]
        os.writev(self.connection.fileno(), head + [body] * 62)


class Corked(Handler):
    """Answers bit by bit, with sends that wait for more; all leaves together when the cork is drawn."""

    def answer(self, body):
        cork = self.connection.setsockopt
        cork(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
        for at in range(0, len(head), 7):
            self.connection.send(head[at : at + 7], socket.MSG_MORE)
        self.connection.sendall(body)
        cork(socket.IPPROTO_TCP, socket.TCP_CORK, 0)


class FromFile(Handler):
    """The body goes from a file to the socket in the kernel."""

    def answer(self, body):
        with tempfile.TemporaryFile() as file:
            file.write(body * 512)
            file.seek(0)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body) * 512))
            self.end_headers()
            self.connection.sendfile(file)


class Threads(http.server.ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True

    def get_request(self):
        connection, address = super().get_request()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection, address

    def process_request_thread(self, request, client_address):
        # The handshake is the connection's thread's.
        tls = server_tls()
        super().process_request_thread(tls.wrap_socket(request, server_side=True) if tls else request, client_address)


class Processes(socketserver.ForkingMixIn, http.server.HTTPServer):
    request_queue_size = 256
    max_children = 256


class Passing(Threads):
    """Accepts, and leaves the connection to another process."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.out, into = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork() == 0:
            while True:
                _, [descriptor], *_ = socket.recv_fds(into, 1, 1)
                super().process_request(socket.socket(fileno=descriptor), None)

    def process_request(self, request, client_address):
        socket.send_fds(self.out, [b"c"], [request.fileno()])
        request.close()


# Calls of an event loop: connections are taken from a pool and given back, as aiohttp's and redis-py's clients do.


class Loop:
    def __init__(self):
        self.free = {}
        self.ticking = None

    async def serve(self):
        server = await asyncio.start_server(self.connection, LISTEN, int(PORT), backlog=256, ssl=server_tls())
        async with server:
            await server.serve_forever()

    async def connection(self, reader, writer):
        try:
            while head := await read_head(reader):
                request = Request(head[0].split(" ")[1], header(head, "traceparent"))
                await self.modes[request.mode](self, request)
                body = f"done {request.id}\n"
                writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def call(self, request, id, parent=None):
        log("called", id, parent or request.id)
        target = TARGETS[request.target]
        free = self.free.setdefault(target, [])
        if free:
            reader, writer = free.pop()
        else:
            reader, writer = await asyncio.open_connection(target.hostname, target.port, ssl=client_tls(target))
        if target.scheme == "redis":
            writer.write(redis_get(id))
            await reader.readline()
        else:
            headers = {"Host": target.netloc, **request.headers(id)}
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            writer.write(f"GET {request.path(id)} HTTP/1.1\r\n{lines}\r\n".encode())
            await reader.readexactly(int(header(await read_head(reader), "content-length")))
        free.append((reader, writer))

    async def leaf(self, _):
        pass

    async def sequence(self, request):
        for id in request.calls():
            await self.call(request, id)

    async def gather(self, request):
        await asyncio.gather(*(self.call(request, id) for id in request.calls()))

    async def to_thread(self, request):
        await asyncio.gather(*(asyncio.to_thread(call, request, id) for id in request.calls()))

    async def beside(self, request):
        if not self.ticking:
            self.ticking = asyncio.create_task(self.tick(request, request.id.split("-")[0]))
        await self.sequence(request)

    async def tick(self, request, tag):
        """Calls that are made for no request, on the same connections."""
        for number in itertools.count(1000000):
            await self.call(request, f"{tag}-{number}", "-")
            await asyncio.sleep(0.001)

    async def nap(self, request):
        await asyncio.sleep(random.uniform(0, request.count / 1000))

    modes = {"leaf": leaf, "seq": sequence, "gather": gather, "beside": beside, "tothread": to_thread, "nap": nap}


async def read_head(reader):
    lines = []
    while line := (await reader.readline()).decode().rstrip():
        lines.append(line)
    return lines


def header(head, name):
    return next((line.split(": ", 1)[1] for line in head if line.lower().startswith(name + ":")), None)


STYLES = {
    "threads": (Threads, Handler),
    "forks": (Processes, Handler),
    "passed": (Passing, Handler),
    "bytes": (Threads, ByteByByte),
    "peeks": (Threads, Peeking),
    "dups": (Threads, Duplicating),
    "vectors": (Threads, Vectored),
    "files": (Threads, FromFile),
    "corked": (Threads, Corked),
}

if STYLE == "asyncio":
    asyncio.run(Loop().serve())
else:
    server, handler = STYLES[STYLE]
    server((LISTEN, int(PORT)), handler).serve_forever()

"""The demo's clients: a mix of requests to www.demo over HTTP and HTTPS, some of which must fail."""

import argparse
import http.client
import itertools
import json
import random
import secrets
import socket
import ssl
import threading
import time

HOST = "www.demo"
# Requests on one connection, and connections side by side.
REQUESTS_PER_CONNECTION = 12
CLIENTS = 3
PAUSE_S = 0.04


MISSING = [("GET", "/favicon.ico", None), ("GET", "/api/items/9999", None), ("DELETE", "/api/basket", None)]
BROKEN_OR_SLOW = [("GET", "/api/coupons", None), ("GET", "/api/visits", None), ("GET", "/api/report", None)]


def requests(number, chance):
    """Round `number` of a client: (method, path, body)."""
    yield "GET", "/", None
    yield "GET", f"/api/items?category={chance.randrange(8)}", None
    for _ in range(4):
        yield "GET", f"/api/items/{chance.randint(1, 12)}", None
    yield "POST", "/api/orders", {"item": chance.randint(1, 12), "amount": chance.randint(1, 5)}
    yield MISSING[number % 3]
    yield BROKEN_OR_SLOW[number % 3]


def connect(number, old, ca):
    """Mostly plain HTTP; every fourth connection HTTPS, which old clients speak over TLS 1.2."""
    if number % 4 != 3:
        return http.client.HTTPConnection(HOST, timeout=10)
    context = ssl.create_default_context(cafile=ca)
    if old:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    return http.client.HTTPSConnection(HOST, timeout=10, context=context)


def distrust():
    """A client that does not know the shop's certificate gives up with an alert."""
    context = ssl.create_default_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection((HOST, 443), timeout=10) as plain:
        try:
            context.wrap_socket(plain, server_hostname=HOST)
        except ssl.SSLError:
            pass


def look_up(name):
    try:
        socket.getaddrinfo(name, 80)
    except socket.gaierror:
        pass


def client(seed, rounds, ca):
    chance = random.Random(seed)
    connection, left = None, 0
    numbers = itertools.count(seed)
    for round_number in range(rounds) if rounds else itertools.count():
        for method, path, body in requests(round_number, chance):
            if left == 0:
                if connection:
                    connection.close()
                connection, left = connect(next(numbers), seed == 1, ca), REQUESTS_PER_CONNECTION
            headers = {"traceparent": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"}
            try:
                connection.request(method, path, json.dumps(body) if body else None, headers)
                connection.getresponse().read()
                left -= 1
            except (OSError, http.client.HTTPException):
                left = 0
            time.sleep(PAUSE_S)
        if round_number % 5 == seed % 5:
            look_up("search.demo")
            distrust()
    if connection:
        connection.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ca", required=True, help="certificate of the shop")
    parser.add_argument("--rounds", type=int, default=0, help="rounds per client; 0 never ends")
    args = parser.parse_args()
    threads = [threading.Thread(target=client, args=(seed, args.rounds, args.ca)) for seed in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

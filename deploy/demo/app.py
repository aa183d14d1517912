"""The demo's shop: an HTTP service over MariaDB and Redis, which answers, fails and is slow like a real one."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pymysql
import redis

local = threading.local()


def database():
    """This thread's connection to the database."""
    if not hasattr(local, "database"):
        local.database = pymysql.connect(
            host="db.demo", user="shop", password="shop", database="shop", autocommit=True
        )
    return local.database


def cache():
    """This thread's connection to the cache."""
    if not hasattr(local, "cache"):
        local.cache = redis.Redis(host="cache.demo", socket_timeout=5)
    return local.cache


def rows(sql, *values):
    with database().cursor() as cursor:
        cursor.execute(sql, values)
        return cursor.fetchall()


def items(query, _body):
    found = rows("SELECT id, name, price FROM items WHERE category = %s ORDER BY id", query.get("category", ["1"])[0])
    return 200, [{"id": id, "name": name, "price": float(price)} for id, name, price in found]


def item(id):
    key = f"item:{id}"
    cached = cache().get(key)
    if cached:
        return 200, json.loads(cached)
    found = rows("SELECT name, price, stock FROM items WHERE id = %s", id)
    if not found:
        return 404, {"error": f"there is no item {id}"}
    name, price, stock = found[0]
    answer = {"id": id, "name": name, "price": float(price), "stock": stock}
    cache().set(key, json.dumps(answer), ex=3)
    return 200, answer


def order(_query, body):
    wish = json.loads(body)
    connection = database()
    connection.begin()
    rows("INSERT INTO orders (item, amount) VALUES (%s, %s)", wish["item"], wish["amount"])
    rows("UPDATE items SET stock = stock - %s WHERE id = %s", wish["amount"], wish["item"])
    connection.commit()
    pipeline = cache().pipeline(transaction=False)
    pipeline.delete(f"item:{wish['item']}")
    pipeline.incr("orders")
    pipeline.hincrby("sold", wish["item"], wish["amount"])
    return 201, {"orders": pipeline.execute()[1]}


def report(_query, _body):
    found = rows("SELECT category, SUM(price * stock), SLEEP(0.03) FROM items GROUP BY category")
    return 200, [{"category": category, "worth": float(worth)} for category, worth, _ in found]


def coupons(_query, _body):
    return 200, rows("SELECT code FROM coupons")  # this table does not exist


def visits(_query, _body):
    cache().set("visits", "many")
    return 200, cache().incr("visits")  # that is no number


ROUTES = {
    ("GET", "/api/items"): items,
    ("POST", "/api/orders"): order,
    ("GET", "/api/report"): report,
    ("GET", "/api/coupons"): coupons,
    ("GET", "/api/visits"): visits,
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def respond(self):
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        route = ROUTES.get((self.command, url.path))
        try:
            if route:
                status, answer = route(parse_qs(url.query), body)
            elif self.command == "GET" and url.path.startswith("/api/items/"):
                status, answer = item(url.path.removeprefix("/api/items/"))
            else:
                status, answer = 404, {"error": f"there is nothing at {url.path}"}
        except (pymysql.Error, redis.RedisError) as error:
            status, answer = 500, {"error": str(error)}
        text = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_DELETE = respond

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()

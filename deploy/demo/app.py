"""The demo's shop front: an asyncio HTTP service over Redis and the stock service, which answers, fails and is slow like a real one."""

import asyncio
import json

import aiohttp
import redis.asyncio as redis
from aiohttp import web

STOCK = "http://stock.demo:8001"
# Seconds that an item stays in the cache.
CACHED_S = 3


async def ask_stock(app, method, path, body=None):
    """Status and answer of the stock service."""
    async with app["stock"].request(method, STOCK + path, json=body) as response:
        return response.status, await response.json()


async def items(request):
    return await ask_stock(request.app, "GET", f"/items?category={request.query.get('category', '1')}")


async def item(request):
    number, cache = request.match_info["number"], request.app["cache"]
    cached = await cache.get(f"item:{number}")
    if cached:
        return 200, json.loads(cached)
    status, answer = await ask_stock(request.app, "GET", f"/items/{number}")
    if status == 200:
        await cache.set(f"item:{number}", json.dumps(answer), ex=CACHED_S)
    return status, answer


async def order(request):
    wish = await request.json()
    status, answer = await ask_stock(request.app, "POST", "/orders", wish)
    if status == 201:
        pipeline = request.app["cache"].pipeline(transaction=False)
        pipeline.delete(f"item:{wish['item']}")
        pipeline.incr("orders")
        pipeline.hincrby("sold", wish["item"], wish["amount"])
        answer["orders"] = (await pipeline.execute())[1]
    return status, answer


async def report(request):
    """Two questions at once."""
    (status, worth), orders = await asyncio.gather(
        ask_stock(request.app, "GET", "/report"), request.app["cache"].get("orders")
    )
    return status, {"worth": worth, "orders": int(orders or 0)}


async def coupons(request):
    return await ask_stock(request.app, "GET", "/coupons")  # the table behind it does not exist


async def visits(request):
    await request.app["cache"].set("visits", "many")
    return 200, await request.app["cache"].incr("visits")  # that is no number


def answers(handler):
    async def handle(request):
        try:
            status, answer = await handler(request)
        except (aiohttp.ClientError, redis.RedisError) as error:
            status, answer = 500, {"error": str(error)}
        return web.json_response(answer, status=status)

    return handle


async def connections(app):
    app["cache"] = redis.Redis(host="cache.demo", socket_timeout=5)
    app["stock"] = aiohttp.ClientSession()
    yield
    await app["stock"].close()


if __name__ == "__main__":
    shop = web.Application()
    shop.cleanup_ctx.append(connections)
    shop.router.add_get("/api/items", answers(items))
    shop.router.add_get("/api/items/{number}", answers(item))
    shop.router.add_post("/api/orders", answers(order))
    shop.router.add_get("/api/report", answers(report))
    shop.router.add_get("/api/coupons", answers(coupons))
    shop.router.add_get("/api/visits", answers(visits))
    web.run_app(shop, port=8000, print=None, access_log=None)

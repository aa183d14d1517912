# A process that was made long after its program began, and executes none of its own: says a text to itself, in a task of asyncio.
import asyncio
import os
import socket
import time

time.sleep(1.5)
if os.fork():
    os.wait()


async def speak():
    here, there = socket.socketpair()
    while True:
        here.send(b"text-of-a-task")
        there.recv(64)
        await asyncio.sleep(0.02)


asyncio.run(speak())

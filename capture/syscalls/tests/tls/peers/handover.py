"""Two threads and a queue between them: says what went through, and who they are."""

import queue
import threading

items = queue.SimpleQueue()
answers = queue.SimpleQueue()


def work():
    item = items.get()
    answers.put((id(item), threading.get_native_id()))


worker = threading.Thread(target=work)
worker.start()
item = object()
items.put(item)
address, taker = answers.get()
assert address == id(item)
print(f"item={id(item)} giver={threading.get_native_id()} taker={taker}", flush=True)

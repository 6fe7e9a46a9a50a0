"""A function for tests: one path for each thing that the template's bield/ offers, and for what a function must not do."""

import os
import random
import secrets
import socket
import threading
import time
from datetime import UTC, datetime

from bield import kv, nn
from bield.handler import conflict, denied, logs, serve

# Drawn when the component was built.
BORN_WITH = random.random()


def echo(request):
    return request.body


def caller(request):
    return request.caller


def add(request):
    return str(kv.open("counters").increment(request.text()))


def take_away(request):
    return str(kv.open("counters").increment(request.text(), -1))


def append(request):
    """Appends the body to what the key "log" has, however many do so at once; answers with its length."""
    value = kv.open("counters", kv.raw).update("log", lambda log: (log or b"") + request.body)
    return str(len(value))


def get(request):
    value = kv.open("counters").get(request.text())
    if value is None:
        raise conflict("nothing there")
    return value


def fill(request):
    counters = kv.open("counters", kv.json)
    counters.set_many((key, {"key": key}) for key in request.text())
    counters.delete("b")
    counters.delete_many(["c", "missing"])
    return {
        "keys": counters.keys(),
        "a": counters.get("a"),
        "many": counters.get_many(["d", "missing", "a"]),
        "exists": [counters.exists(key) for key in "ab"],
    }


def never(request):
    """An update that decides otherwise, and one that raises, write nothing."""
    counters = kv.open("counters")
    counters.update("x", lambda _: None)
    try:
        counters.update("x", lambda _: 1 / 0)
    except ZeroDivisionError:
        pass
    return str(counters.exists("x"))


def refuse(request):
    raise denied(f"not for {request.caller[:4]}")


def fail(request):
    print("about to fail")
    logs.warn("careful")
    raise KeyError(request.text())


def run(request):
    """Halves of the numbers, by a model."""
    numbers = request.json()
    outputs = nn.model("model").run({"bytes": nn.tensor("I32", [1, len(numbers)], numbers)})
    scores = outputs["scores"]
    return {"type": scores.type, "shape": list(scores.shape), "numbers": list(scores.numbers)}


def now(request):
    begun = time.monotonic()
    first = time.time()
    return {"time": first, "again": time.time() - first, "passed": time.monotonic() - begun,
            "day": datetime.now(UTC).strftime("%Y-%m-%d")}


def draw(request):
    return {"born": BORN_WITH, "random": random.random(), "urandom": os.urandom(4).hex(), "token": secrets.token_hex(4)}


def file(request):
    return open(request.text()).read()


def environment(request):
    return dict(os.environ)


def network(request):
    socket.create_connection(("127.0.0.1", 80), timeout=1)


def thread(request):
    threading.Thread(target=print).start()


def endless(request):
    while True:
        pass


def deep(request):
    def down(n):
        return down(n + 1)

    return str(down(0))


def large(request):
    return str(len(bytearray(1 << 30)))


Handler = serve({
    "/echo": echo, "/caller": caller, "/add": add, "/take": take_away, "/append": append, "/get": get, "/fill": fill,
    "/never": never, "/refuse": refuse, "/fail": fail, "/run": run, "/now": now, "/draw": draw, "/file": file,
    "/environment": environment, "/network": network, "/thread": thread, "/endless": endless, "/deep": deep, "/large": large,
})

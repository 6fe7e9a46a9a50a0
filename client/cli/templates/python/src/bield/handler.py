"""The door of a function: requests by path in, answers or refusals out.

    Handler = serve({"/greet": lambda request: f"Hello, {request.text()}"})

Always true: whatever a route raises becomes an answer. (An exception that left the component would end the instance, and
its caller would learn nothing.) What a Refusal says, its caller reads; of any other exception only the owner's log does.
"""

import io
import json
import random
import sys
import traceback

from componentize_py_types import Err
from wit_world.imports import log, types


class Refusal(Exception):
    """What a route raises to refuse; `kind` is one of the errors of wit/world.wit."""

    def __init__(self, kind, message):
        super().__init__(message)
        self.kind = kind
        self.message = message


def bad_request(message):
    """The request makes no sense."""
    return Refusal(types.Error_BadRequest, message)


def not_found(message):
    """What it asks for is not there."""
    return Refusal(types.Error_NotFound, message)


def denied(message):
    """This caller may not."""
    return Refusal(types.Error_Denied, message)


def conflict(message):
    """It contradicts what is stored."""
    return Refusal(types.Error_Conflict, message)


class Request:
    """What was asked: `path`, `rest` (what a route's star stands for), `caller`, `content_type`, `body` (bytes)."""

    def __init__(self, path, rest, asked):
        self.path = path
        self.rest = rest
        self.caller = asked.caller
        self.content_type = asked.content_type
        self.body = asked.body

    def text(self):
        """The body as text."""
        try:
            return self.body.decode()
        except UnicodeDecodeError:
            raise bad_request("the body is not UTF-8") from None

    def json(self):
        """What the body says in JSON."""
        try:
            return json.loads(self.text())
        except ValueError:
            raise bad_request("the body is not JSON") from None


def serve(routes):
    """The handler that a function exports.

    `routes` maps a path to what answers it: "/cart/add" that path, "/files/*" whatever begins with "/files/". Given a
    Request, a route returns a string, bytes, or anything that JSON can say.
    """

    class Handler:
        def handle(self, asked):
            # The generator was made when the component was built, and is the same in every instance.
            random.seed()
            try:
                return _answer(_routed(routes, asked))
            except Refusal as refusal:
                raise Err(refusal.kind(refusal.message)) from None
            except Exception:
                logs.error(traceback.format_exc())
                failed = types.Error_Failed("the function failed; its owner's log says how")
                raise Err(failed) from None

    return Handler


class logs:
    """Lines for the function's owner."""

    @staticmethod
    def debug(message):
        log.write(log.Level.DEBUG, str(message))

    @staticmethod
    def info(message):
        log.write(log.Level.INFO, str(message))

    @staticmethod
    def warn(message):
        log.write(log.Level.WARN, str(message))

    @staticmethod
    def error(message):
        log.write(log.Level.ERROR, str(message))


class _Lines(io.TextIOBase):
    """A stream without a file behind it: each line goes to the owner's log."""

    def __init__(self, write):
        self._write = write
        self._begun = ""

    def write(self, text):
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._write(line)
        return len(text)

    def writable(self):
        return True


def _routed(routes, asked):
    path = "/" + asked.path.lstrip("/")
    first, slash, rest = path[1:].partition("/")
    route = routes.get(path)
    if route is None and slash:
        route = routes.get(f"/{first}/*")
    if route is None:
        raise not_found(f"nothing at {path}; there is {', '.join(routes)}")
    return route(Request(path, rest, asked))


def _answer(value):
    if isinstance(value, str):
        return types.Response("text/plain; charset=utf-8", value.encode())
    if isinstance(value, (bytes, bytearray)):
        return types.Response("application/octet-stream", bytes(value))
    return types.Response("application/json", json.dumps(value).encode())


# What is printed would end the request: there are no files, not even these.
sys.stdout, sys.stderr = _Lines(logs.info), _Lines(logs.error)

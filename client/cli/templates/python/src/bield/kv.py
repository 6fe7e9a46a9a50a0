"""Buckets: what outlives a request. bield.toml declares each and how consistent it is.

    stock = open("stock", json)
    stock.update("apples", lambda left: (left or 0) + 5)

Always true: a key that has no value gives None. Not here: consistency. On an eventual bucket `increment` and `update` are
refused by bield, not imitated.
"""

import json as _json

from componentize_py_types import Err
from wit_world.imports import atomics, batch, store

from .handler import conflict


class text:
    """How values are written: as text (the usual),"""

    encode = staticmethod(str.encode)
    decode = staticmethod(bytes.decode)


class json:
    """as anything that JSON can say,"""

    @staticmethod
    def encode(value):
        return _json.dumps(value).encode()

    decode = staticmethod(_json.loads)


class raw:
    """or as they are, bytes."""

    encode = staticmethod(bytes)
    decode = staticmethod(bytes)


class BucketError(Exception):
    """What bield says when it refuses an operation on a bucket."""


def open(name, codec=text):
    """Opens a bucket that bield.toml declares."""
    with _Said(name):
        return Bucket(name, codec, store.open(name))


class Bucket:
    """An open bucket."""

    def __init__(self, name, codec, opened):
        self._codec = codec
        self._store = opened
        self._said = _Said(name)

    def get(self, key):
        """The value of a key, or None."""
        with self._said:
            return self._read(self._store.get(key))

    def set(self, key, value):
        """Gives a key a value, whatever it had."""
        with self._said:
            self._store.set(key, self._codec.encode(value))

    def delete(self, key):
        """Removes a key, if there."""
        with self._said:
            self._store.delete(key)

    def exists(self, key):
        """Whether a key has a value."""
        with self._said:
            return self._store.exists(key)

    def keys(self, prefix=""):
        """Every key that begins with `prefix`, in order. Goes through the whole bucket."""
        found, cursor = [], None
        while True:
            with self._said:
                page = self._store.list_keys(cursor)
            found.extend(key for key in page.keys if key.startswith(prefix))
            cursor = page.cursor
            if cursor is None:
                return found

    def get_many(self, keys):
        """Values of several keys, as pairs, in one call; keys without a value are left out."""
        with self._said:
            found = batch.get_many(self._store, list(keys))
        return [(pair[0], self._read(pair[1])) for pair in found if pair is not None]

    def set_many(self, pairs):
        """Gives several keys their values, as pairs. May happen in part if it fails."""
        encoded = [(key, self._codec.encode(value)) for key, value in pairs]
        with self._said:
            batch.set_many(self._store, encoded)

    def delete_many(self, keys):
        """Removes several keys."""
        with self._said:
            batch.delete_many(self._store, list(keys))

    def increment(self, key, by=1):
        """Adds to the integer under a key, with nothing between; returns the sum. A key with no value counts as 0."""
        if isinstance(by, bool) or not isinstance(by, int) or not -(2**63) <= by < 2**63:
            raise ValueError(f"cannot add {by!r}: not a whole number of 64 bits")
        with self._said:
            return atomics.increment(self._store, key, by)

    def update(self, key, change):
        """Replaces a value by what `change` makes of it (of None, if the key has none), with nothing between.

        If somebody else wrote meanwhile, `change` is asked again. If it returns None, or raises, nothing is written. Returns
        what it returned.
        """
        with self._said:
            cas = atomics.Cas.new(self._store, key)
        for _ in range(TRIES_MAX):
            with self._said:
                current = cas.current()
            value = change(self._read(current))
            if value is None:
                return None
            try:
                atomics.swap(cas, self._codec.encode(value))
                return value
            except Err as refused:
                lost = refused.value
                if not isinstance(lost, atomics.CasError_CasFailed):
                    raise self._said.described(lost.value) from None
                cas = lost.value
        raise conflict(f"{key} is written by too many at once; try again")

    def _read(self, value):
        return None if value is None else self._codec.decode(value)


class _Said:
    """What bield answers when it refuses becomes an error in words."""

    def __init__(self, bucket):
        self._bucket = bucket

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if isinstance(error, Err):
            raise self.described(error.value) from None

    def described(self, reason):
        match reason:
            case store.Error_NoSuchStore():
                words = "bield.toml declares none of that name"
            case store.Error_AccessDenied():
                words = "this function may not open it"
            case _:
                words = reason.value
        return BucketError(f"bucket {self._bucket}: {words}")


# Each failed try means that somebody else succeeded, so this is met only where very many write one key.
TRIES_MAX = 100

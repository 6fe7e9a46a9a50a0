"""What this function does. Each request gets an instance of its own: only buckets outlive it."""

from bield import kv
from bield.handler import serve


def visit(request):
    """Counts how often each caller came by."""
    return {"visits": kv.open("visits").increment(request.caller)}


def visitors(request):
    """Who came how often. A number is kept as decimal text."""
    visits = kv.open("visits")
    return {caller: int(times) for caller, times in visits.get_many(visits.keys())}


Handler = serve({"/visit": visit, "/visitors": visitors})

// What this function does. Each request gets an instance of its own: only buckets outlive it.

#include "bield.h"

static bield_bytes decimal(int64_t number);
static bield_answer wrong(void);

/// Counts how often each caller came by.
static bield_answer visit(bield_request request) {
    bield_bucket visits;
    int64_t sum;
    if (bield_open("visits", &visits) != BIELD_DONE) return wrong();
    if (bield_increment(visits, request.caller, 1, &sum) != BIELD_DONE) return wrong();
    return bield_answered("text/plain", decimal(sum));
}

bield_answer handle(bield_request request) {
    if (bield_same(request.path, bield_text("/visit"))) return visit(request);
    return bield_refused(BIELD_NOT_FOUND, bield_text("nothing there; there is /visit"));
}

static bield_answer wrong(void) {
    bield_log(BIELD_ERROR, bield_reason());
    return bield_refused(BIELD_FAILED, bield_text("the function failed; its owner's log says how"));
}

static bield_bytes decimal(int64_t number) {
    uint8_t *digits = bield_room(20);
    uint64_t rest = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    size_t at = 20;
    do digits[--at] = (uint8_t)('0' + rest % 10);
    while (rest /= 10);
    if (number < 0) digits[--at] = '-';
    return (bield_bytes){digits + at, 20 - at};
}

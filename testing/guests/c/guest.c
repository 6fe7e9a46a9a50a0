// A function for tests: one path for each thing that bield.h offers. Built by tests/functions/checked_in.rs.

#include "bield.h"

static bield_bytes decimal(int64_t number) {
    uint8_t *digits = bield_room(20);
    uint64_t rest = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    size_t at = 20;
    do digits[--at] = (uint8_t)('0' + rest % 10);
    while (rest /= 10);
    if (number < 0) digits[--at] = '-';
    return (bield_bytes){digits + at, 20 - at};
}

static bield_answer refused(bield_status status) {
    bield_log(BIELD_ERROR, bield_reason());
    return bield_refused(status == BIELD_NO_SUCH ? BIELD_NOT_FOUND : BIELD_FAILED, bield_reason());
}

/// Adds 1 to the number under the key that the body names.
static bield_answer add(bield_bucket bucket, bield_bytes key) {
    int64_t sum;
    const bield_status status = bield_increment(bucket, key, 1, &sum);
    return status == BIELD_DONE ? bield_answered("text/plain", decimal(sum)) : refused(status);
}

/// Appends the body to what the key "log" has, however many do so at once; answers with its length.
static bield_answer append(bield_bucket bucket, bield_bytes more) {
    bield_swap swap;
    bield_value value;
    bield_status status = bield_read(bucket, bield_text("log"), &swap, &value);
    while (status == BIELD_DONE || status == BIELD_CHANGED) {
        const size_t length = value.bytes.length + more.length;
        uint8_t *whole = bield_room(length);
        __builtin_memcpy(whole, value.bytes.at, value.bytes.length);
        __builtin_memcpy(whole + value.bytes.length, more.at, more.length);
        status = bield_replace(&swap, (bield_bytes){whole, length}, &value);
        if (status == BIELD_DONE) return bield_answered("text/plain", decimal((int64_t)length));
    }
    return refused(status);
}

/// The value of the key that the body names.
static bield_answer get(bield_bucket bucket, bield_bytes key) {
    bield_value value;
    const bield_status status = bield_get(bucket, key, &value);
    if (status != BIELD_DONE) return refused(status);
    if (!value.found) return bield_refused(BIELD_NOT_FOUND, bield_text("no such key"));
    return bield_answered("application/octet-stream", value.bytes);
}

/// Sets the key "kept" to the body, and reads it back.
static bield_answer keep(bield_bucket bucket, bield_bytes body) {
    const bield_status status = bield_set(bucket, bield_text("kept"), body);
    return status == BIELD_DONE ? get(bucket, bield_text("kept")) : refused(status);
}

/// Runs the model "model" on its one input "bytes", whose numbers are the body; answers with the numbers it makes.
static bield_answer run(bield_bytes numbers) {
    const uint32_t shape[] = {1, (uint32_t)(numbers.length / 4)};
    const bield_tensor input = {bield_text("bytes"), BIELD_I32, shape, 2, numbers};
    bield_tensor *outputs;
    size_t count;
    const bield_status status = bield_run("model", &input, 1, &outputs, &count);
    if (status != BIELD_DONE) return refused(status);
    if (count != 1 || outputs[0].element != BIELD_FP32 || outputs[0].rank != 2)
        return bield_refused(BIELD_FAILED, bield_text("another answer than expected"));
    return bield_answered("application/octet-stream", outputs[0].data);
}

bield_answer handle(bield_request request) {
    const bield_bytes path = request.path, body = request.body;
    if (bield_same(path, bield_text("/echo"))) return (bield_answer){BIELD_ANSWERED, request.content_type, body};
    if (bield_same(path, bield_text("/caller"))) return bield_answered("text/plain", request.caller);
    if (bield_same(path, bield_text("/run"))) return run(body);

    bield_bucket bucket;
    const bield_status status = bield_open("counters", &bucket);
    if (status != BIELD_DONE) return refused(status);
    bield_answer answer = bield_refused(BIELD_NOT_FOUND, path);
    if (bield_same(path, bield_text("/add"))) answer = add(bucket, body);
    if (bield_same(path, bield_text("/append"))) answer = append(bucket, body);
    if (bield_same(path, bield_text("/get"))) answer = get(bucket, body);
    if (bield_same(path, bield_text("/keep"))) answer = keep(bucket, body);
    bield_close(bucket);
    return answer;
}

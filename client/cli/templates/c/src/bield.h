// What a function written in C uses of bield: requests in, answers out, buckets, sealed models, a log.
//
// Always true: memory that these functions give lasts until the request is answered; nobody frees it, since every request
// has an instance of its own. Bytes are never ended by a zero.

#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    const uint8_t *at;
    size_t length;
} bield_bytes;

/// The bytes of a text, without the zero at its end.
bield_bytes bield_text(const char *text);
bool bield_same(bield_bytes a, bield_bytes b);
/// Room for so many bytes, all zero.
void *bield_room(size_t length);

// Requests and answers.

typedef struct {
    bield_bytes path, content_type, body;
    /// Who sent it, as bield verified: 64 hexadecimal digits.
    bield_bytes caller;
} bield_request;

typedef enum { BIELD_BAD_REQUEST, BIELD_NOT_FOUND, BIELD_DENIED, BIELD_CONFLICT, BIELD_FAILED, BIELD_ANSWERED } bield_kind;

typedef struct {
    bield_kind kind;
    /// Media type of an answer.
    bield_bytes content_type;
    /// Body of an answer, or the words of a refusal, in UTF-8.
    bield_bytes body;
} bield_answer;

/// What the function does: yours to write.
bield_answer handle(bield_request request);

bield_answer bield_answered(const char *content_type, bield_bytes body);
bield_answer bield_refused(bield_kind kind, bield_bytes words);

typedef enum { BIELD_DEBUG, BIELD_INFO, BIELD_WARN, BIELD_ERROR } bield_level;

/// A line for the function's owner.
void bield_log(bield_level level, bield_bytes line);

// Buckets that bield.toml declares.

typedef enum {
    BIELD_DONE,
    /// There is no bucket or model of that name.
    BIELD_NO_SUCH,
    BIELD_ACCESS_DENIED,
    /// Somebody wrote the key meanwhile.
    BIELD_CHANGED,
    /// Anything else: bield_reason() says what.
    BIELD_OTHER,
} bield_status;

/// What was said of the last operation that was not done.
bield_bytes bield_reason(void);

typedef struct { int32_t handle; } bield_bucket;

/// A value that may not be there.
typedef struct {
    bool found;
    bield_bytes bytes;
} bield_value;

bield_status bield_open(const char *name, bield_bucket *bucket);
void bield_close(bield_bucket bucket);
bield_status bield_get(bield_bucket bucket, bield_bytes key, bield_value *value);
bield_status bield_set(bield_bucket bucket, bield_bytes key, bield_bytes value);
bield_status bield_delete(bield_bucket bucket, bield_bytes key);
/// Adds to a number in one step; a key with no value counts as 0. Refused on an eventual bucket, as swaps are.
bield_status bield_increment(bield_bucket bucket, bield_bytes key, int64_t by, int64_t *sum);

typedef struct { int32_t handle; } bield_swap;

/// Reads a key in order to replace it.
bield_status bield_read(bield_bucket bucket, bield_bytes key, bield_swap *swap, bield_value *value);
/// Replaces it, if nobody wrote it since. BIELD_CHANGED: `swap` and `value` are now what stands there; try again.
bield_status bield_replace(bield_swap *swap, bield_bytes with, bield_value *value);

// Sealed models that bield.toml names. They run outside of the function, in the enclave's engine.

typedef enum { BIELD_FP16, BIELD_FP32, BIELD_FP64, BIELD_BF16, BIELD_U8, BIELD_I32, BIELD_I64 } bield_element;

typedef struct {
    bield_bytes name;
    bield_element element;
    const uint32_t *shape;
    size_t rank;
    /// Little-endian, last dimension fastest.
    bield_bytes data;
} bield_tensor;

/// Runs a model once. `outputs` and `count` say what it made.
bield_status bield_run(const char *model, const bield_tensor *inputs, size_t inputs_count, bield_tensor **outputs, size_t *count);

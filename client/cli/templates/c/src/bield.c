// The canonical ABI of the world bield:function/function@0.1.0, by hand: how values of wit/ lie in memory.
//
// A result lies as one byte (0 done, 1 not), then what was made or why not, at offset 4, or at 8 where an s64 may stand
// there. A string or list is its address and length. `wasm-tools component new` checks each signature against wit/.

#include "bield.h"

#define IMPORT(module, name) __attribute__((import_module(module), import_name(name)))
#define EXPORT(name) __attribute__((export_name(name)))
#define STORE "wasi:keyvalue/store@0.2.0-draft2"
#define ATOMICS "wasi:keyvalue/atomics@0.2.0-draft2"
#define NN(interface) "wasi:nn/" interface "@0.2.0-rc-2024-10-28"

// Memory: taken from the end of the linear memory, in pages of 64 KiB, and never given back.

extern uint8_t __heap_base;
static uintptr_t next;

void *bield_room(size_t length) {
    if (next == 0) next = (uintptr_t)&__heap_base;
    const uintptr_t from = (next + 15) & ~(uintptr_t)15;
    const uintptr_t end = from + length;
    const uintptr_t have = __builtin_wasm_memory_size(0) << 16;
    if (end < from) __builtin_trap();
    if (end > have && __builtin_wasm_memory_grow(0, (end - have + 0xffff) >> 16) == (size_t)-1) __builtin_trap();
    next = end;
    return (void *)from;
}

/// Where bield puts what it hands over.
EXPORT("cabi_realloc") void *cabi_realloc(void *old, size_t old_length, size_t align, size_t length) {
    (void)align;
    void *made = bield_room(length);
    __builtin_memcpy(made, old, old_length < length ? old_length : length);
    return made;
}

bield_bytes bield_text(const char *text) {
    size_t length = 0;
    while (text[length]) length++;
    return (bield_bytes){(const uint8_t *)text, length};
}

bool bield_same(bield_bytes a, bield_bytes b) {
    if (a.length != b.length) return false;
    for (size_t at = 0; at < a.length; at++)
        if (a.at[at] != b.at[at]) return false;
    return true;
}

// Requests.

typedef struct {
    uint8_t refused;
    union {
        struct { bield_bytes content_type, body; } answer;
        struct { uint8_t kind; bield_bytes words; } refusal;
    };
} handled;
_Static_assert(sizeof(handled) == 20, "result<response, error>");

bield_answer bield_answered(const char *content_type, bield_bytes body) {
    return (bield_answer){BIELD_ANSWERED, bield_text(content_type), body};
}

bield_answer bield_refused(bield_kind kind, bield_bytes words) {
    return (bield_answer){kind, bield_text(""), words};
}

EXPORT("bield:function/handler@0.1.0#handle")
handled *handler_handle(
    const uint8_t *path, size_t path_length, const uint8_t *content_type, size_t content_type_length,
    const uint8_t *body, size_t body_length, const uint8_t *caller, size_t caller_length) {
    static handled done;
    const bield_answer answer = handle((bield_request){
        {path, path_length}, {content_type, content_type_length}, {body, body_length}, {caller, caller_length}});
    done.refused = answer.kind != BIELD_ANSWERED;
    if (done.refused) {
        done.refusal.kind = (uint8_t)answer.kind;
        done.refusal.words = answer.body;
    } else {
        done.answer.content_type = answer.content_type;
        done.answer.body = answer.body;
    }
    return &done;
}

IMPORT("bield:function/log@0.1.0", "write") void log_write(int32_t level, const uint8_t *line, size_t length);

void bield_log(bield_level level, bield_bytes line) { log_write(level, line.at, line.length); }

// Buckets.

typedef struct {
    uint8_t kind; // no-such-store, access-denied, other
    bield_bytes words;
} store_error;

typedef struct {
    uint8_t failed;
    union {
        int32_t handle;
        struct { uint8_t found; bield_bytes bytes; } value;
        store_error error;
    };
} stored;
_Static_assert(sizeof(stored) == 16, "result<bucket, error>, result<option<list<u8>>, error>, result<_, error>");

typedef struct {
    uint8_t failed;
    union {
        int64_t number;
        store_error error;
    };
} summed;
_Static_assert(sizeof(summed) == 24, "result<s64, error>");

typedef struct {
    uint8_t failed;
    _Alignas(4) uint8_t changed;
    union {
        store_error error;
        int32_t handle;
    };
} swapped;
_Static_assert(sizeof(swapped) == 20, "result<_, cas-error>");

IMPORT(STORE, "open") void store_open(const uint8_t *name, size_t length, stored *done);
IMPORT(STORE, "[resource-drop]bucket") void bucket_drop(int32_t bucket);
IMPORT(STORE, "[method]bucket.get") void bucket_get(int32_t bucket, const uint8_t *key, size_t length, stored *done);
IMPORT(STORE, "[method]bucket.set")
void bucket_set(int32_t bucket, const uint8_t *key, size_t key_length, const uint8_t *value, size_t length, stored *done);
IMPORT(STORE, "[method]bucket.delete") void bucket_delete(int32_t bucket, const uint8_t *key, size_t length, stored *done);
IMPORT(ATOMICS, "increment")
void atomics_increment(int32_t bucket, const uint8_t *key, size_t length, int64_t by, summed *done);
IMPORT(ATOMICS, "[static]cas.new") void cas_new(int32_t bucket, const uint8_t *key, size_t length, stored *done);
IMPORT(ATOMICS, "[method]cas.current") void cas_current(int32_t cas, stored *done);
IMPORT(ATOMICS, "swap") void atomics_swap(int32_t cas, const uint8_t *value, size_t length, swapped *done);

static bield_bytes reason;

bield_bytes bield_reason(void) { return reason; }

static bield_status failed(const store_error *error) {
    reason = error->kind == 0   ? bield_text("bield.toml declares no such bucket")
             : error->kind == 1 ? bield_text("access denied")
                                : error->words;
    return error->kind == 0 ? BIELD_NO_SUCH : error->kind == 1 ? BIELD_ACCESS_DENIED : BIELD_OTHER;
}

static bield_status got(const stored *done, bield_value *value) {
    if (done->failed) return failed(&done->error);
    value->found = done->value.found;
    value->bytes = done->value.found ? done->value.bytes : bield_text("");
    return BIELD_DONE;
}

bield_status bield_open(const char *name, bield_bucket *bucket) {
    stored done;
    const bield_bytes text = bield_text(name);
    store_open(text.at, text.length, &done);
    if (done.failed) return failed(&done.error);
    bucket->handle = done.handle;
    return BIELD_DONE;
}

void bield_close(bield_bucket bucket) { bucket_drop(bucket.handle); }

bield_status bield_get(bield_bucket bucket, bield_bytes key, bield_value *value) {
    stored done;
    bucket_get(bucket.handle, key.at, key.length, &done);
    return got(&done, value);
}

bield_status bield_set(bield_bucket bucket, bield_bytes key, bield_bytes value) {
    stored done;
    bucket_set(bucket.handle, key.at, key.length, value.at, value.length, &done);
    return done.failed ? failed(&done.error) : BIELD_DONE;
}

bield_status bield_delete(bield_bucket bucket, bield_bytes key) {
    stored done;
    bucket_delete(bucket.handle, key.at, key.length, &done);
    return done.failed ? failed(&done.error) : BIELD_DONE;
}

bield_status bield_increment(bield_bucket bucket, bield_bytes key, int64_t by, int64_t *sum) {
    summed done;
    atomics_increment(bucket.handle, key.at, key.length, by, &done);
    if (done.failed) return failed(&done.error);
    *sum = done.number;
    return BIELD_DONE;
}

static bield_status current(bield_swap swap, bield_value *value) {
    stored done;
    cas_current(swap.handle, &done);
    return got(&done, value);
}

bield_status bield_read(bield_bucket bucket, bield_bytes key, bield_swap *swap, bield_value *value) {
    stored done;
    cas_new(bucket.handle, key.at, key.length, &done);
    if (done.failed) return failed(&done.error);
    swap->handle = done.handle;
    return current(*swap, value);
}

bield_status bield_replace(bield_swap *swap, bield_bytes with, bield_value *value) {
    swapped done;
    atomics_swap(swap->handle, with.at, with.length, &done);
    if (!done.failed) return BIELD_DONE;
    if (!done.changed) return failed(&done.error);
    swap->handle = done.handle;
    const bield_status status = current(*swap, value);
    return status == BIELD_DONE ? BIELD_CHANGED : status;
}

// Models.

typedef struct {
    uint8_t failed;
    int32_t handle; // what was made, or the error
} made;

typedef struct {
    bield_bytes name;
    int32_t tensor;
} named;

typedef struct {
    uint8_t failed;
    union {
        struct { const named *at; size_t length; } outputs;
        int32_t error;
    };
} computed;
_Static_assert(sizeof(computed) == 12, "result<list<named-tensor>, error>");

typedef struct { const uint32_t *at; size_t length; } numbers;

IMPORT(NN("tensor"), "[constructor]tensor")
int32_t tensor_new(const uint32_t *shape, size_t rank, int32_t element, const uint8_t *data, size_t length);
IMPORT(NN("tensor"), "[method]tensor.dimensions") void tensor_dimensions(int32_t tensor, numbers *shape);
IMPORT(NN("tensor"), "[method]tensor.ty") int32_t tensor_ty(int32_t tensor);
IMPORT(NN("tensor"), "[method]tensor.data") void tensor_data(int32_t tensor, bield_bytes *data);
IMPORT(NN("tensor"), "[resource-drop]tensor") void tensor_drop(int32_t tensor);
IMPORT(NN("graph"), "load-by-name") void graph_load_by_name(const uint8_t *name, size_t length, made *done);
IMPORT(NN("graph"), "[method]graph.init-execution-context") void graph_init(int32_t graph, made *done);
IMPORT(NN("inference"), "[method]graph-execution-context.compute")
void context_compute(int32_t context, const named *inputs, size_t length, computed *done);
IMPORT(NN("errors"), "[method]error.code") int32_t error_code(int32_t error);
IMPORT(NN("errors"), "[method]error.data") void error_data(int32_t error, bield_bytes *words);

enum { CODE_NOT_FOUND = 6, CODE_SECURITY = 7 };

static bield_status refused(int32_t error) {
    error_data(error, &reason);
    const int32_t code = error_code(error);
    return code == CODE_NOT_FOUND ? BIELD_NO_SUCH : code == CODE_SECURITY ? BIELD_ACCESS_DENIED : BIELD_OTHER;
}

bield_status bield_run(const char *model, const bield_tensor *inputs, size_t inputs_count, bield_tensor **outputs, size_t *count) {
    made done;
    const bield_bytes name = bield_text(model);
    graph_load_by_name(name.at, name.length, &done);
    if (done.failed) return refused(done.handle);
    graph_init(done.handle, &done);
    if (done.failed) return refused(done.handle);

    named *handed = bield_room(inputs_count * sizeof(named));
    for (size_t at = 0; at < inputs_count; at++) {
        const bield_tensor *input = &inputs[at];
        const bield_bytes data = input->data;
        handed[at] = (named){input->name, tensor_new(input->shape, input->rank, input->element, data.at, data.length)};
    }
    computed result;
    context_compute(done.handle, handed, inputs_count, &result);
    if (result.failed) return refused(result.error);

    *count = result.outputs.length;
    *outputs = bield_room(*count * sizeof(bield_tensor));
    for (size_t at = 0; at < *count; at++) {
        const named *output = &result.outputs.at[at];
        numbers shape;
        bield_bytes data;
        tensor_dimensions(output->tensor, &shape);
        tensor_data(output->tensor, &data);
        (*outputs)[at] = (bield_tensor){output->name, tensor_ty(output->tensor), shape.at, shape.length, data};
        tensor_drop(output->tensor);
    }
    return BIELD_DONE;
}

;; Does what the body lists on the bucket "things": a number of bytes that a value has, then for each step one byte
;; (1: get, 2: set), a key of 16 bytes, and for 2 the value. Answers with how many gets found
;; something, as four bytes.
(module
  (import "wasi:keyvalue/store@0.2.0-draft2" "open" (func $open (param i32 i32 i32)))
  (import "wasi:keyvalue/store@0.2.0-draft2" "[method]bucket.get" (func $get (param i32 i32 i32 i32)))
  (import "wasi:keyvalue/store@0.2.0-draft2" "[method]bucket.set" (func $set (param i32 i32 i32 i32 i32 i32)))
  (import "wasi:keyvalue/store@0.2.0-draft2" "[resource-drop]bucket" (func $drop (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "things")
  (global $next (mut i32) (i32.const 1024))

  ;; Room for what the host hands over: taken from the end.
  (func (export "cabi_realloc") (param $old i32) (param $old_length i32) (param $align i32) (param $length i32) (result i32)
    (local $from i32)
    (local.set $from (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
    (global.set $next (i32.add (local.get $from) (local.get $length)))
    (block $enough
      (br_if $enough (i32.le_u (global.get $next) (i32.mul (memory.size) (i32.const 65536))))
      (br_if $enough (i32.ne (i32.const -1)
        (memory.grow (i32.add (i32.shr_u (local.get $length) (i32.const 16)) (i32.const 1)))))
      unreachable)
    (local.get $from))

  ;; path, content-type, body, caller: each an address and a length.
  (func (export "bield:function/handler@0.1.0#handle")
    (param i32 i32 i32 i32) (param $at i32) (param $length i32) (param i32 i32) (result i32)
    (local $bucket i32) (local $value i32) (local $end i32) (local $step i32) (local $key i32)
    (local $found i32) (local $room i32)
    (call $open (i32.const 64) (i32.const 6) (i32.const 128))
    (if (i32.load8_u (i32.const 128)) (then unreachable))
    (local.set $bucket (i32.load (i32.const 132)))
    (local.set $end (i32.add (local.get $at) (local.get $length)))
    (local.set $value (i32.load align=1 (local.get $at)))
    (local.set $at (i32.add (local.get $at) (i32.const 4)))
    (local.set $room (global.get $next))
    (block $done
      (loop $more
        (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
        (local.set $step (i32.load8_u (local.get $at)))
        (local.set $key (i32.add (local.get $at) (i32.const 1)))
        (local.set $at (i32.add (local.get $at) (i32.const 17)))
        (if (i32.and (local.get $step) (i32.const 1)) (then
          (call $get (local.get $bucket) (local.get $key) (i32.const 16) (i32.const 128))
          (if (i32.load8_u (i32.const 128)) (then unreachable))
          (local.set $found (i32.add (local.get $found) (i32.load8_u (i32.const 132))))
          ;; The value is not kept: its room is the next one's.
          (global.set $next (local.get $room))))
        (if (i32.and (local.get $step) (i32.const 2)) (then
          (call $set (local.get $bucket) (local.get $key) (i32.const 16)
            (local.get $at) (local.get $value) (i32.const 128))
          (if (i32.load8_u (i32.const 128)) (then unreachable))
          (local.set $at (i32.add (local.get $at) (local.get $value)))))
        (br $more)))
    (call $drop (local.get $bucket))
    (i32.store (i32.const 192) (local.get $found))
    (i32.store8 (i32.const 0) (i32.const 0))
    (i32.store (i32.const 4) (i32.const 0))
    (i32.store (i32.const 8) (i32.const 0))
    (i32.store (i32.const 12) (i32.const 192))
    (i32.store (i32.const 16) (i32.const 4))
    (i32.const 0)))

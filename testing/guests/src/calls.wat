;; Calls the bucket "things" as often as the body says (u32, little-endian), in the way that the path's first letter says:
;; g gets, s sets, e asks whether there is, i adds 1. Keys are four characters, 1024 of them in turn, the first "k000"
;; (numbers under "n000"); values are 16 bytes. Answers with the number of calls.
(module
  (import "wasi:keyvalue/store@0.2.0-draft2" "open" (func $open (param i32 i32 i32)))
  (import "wasi:keyvalue/store@0.2.0-draft2" "[method]bucket.get" (func $get (param i32 i32 i32 i32)))
  (import "wasi:keyvalue/store@0.2.0-draft2" "[method]bucket.set" (func $set (param i32 i32 i32 i32 i32 i32)))
  (import "wasi:keyvalue/store@0.2.0-draft2" "[method]bucket.exists" (func $exists (param i32 i32 i32 i32)))
  (import "wasi:keyvalue/atomics@0.2.0-draft2" "increment" (func $increment (param i32 i32 i32 i64 i32)))
  (memory (export "memory") 1)
  (global $next (mut i32) (i32.const 4096))
  (data (i32.const 512) "things")
  (data (i32.const 520) "0123456789abcdef")
  (data (i32.const 544) "k000")

  ;; Room for what the host hands over; what a call brought is given back before the next.
  (func (export "cabi_realloc") (param $old i32) (param $old_length i32) (param $align i32) (param $length i32) (result i32)
    (local $from i32)
    (local.set $from (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
    (global.set $next (i32.add (local.get $from) (local.get $length)))
    (if (i32.gt_u (global.get $next) (i32.const 65536)) (then unreachable))
    (local.get $from))

  (func (export "bield:function/handler@0.1.0#handle")
    (param $path i32) (param i32 i32 i32) (param $body i32) (param i32 i32 i32) (result i32)
    (local $what i32) (local $calls i32) (local $done i32) (local $bucket i32) (local $before i32)
    (local.set $what (i32.load8_u (local.get $path)))
    (local.set $calls (i32.load (local.get $body)))
    (call $open (i32.const 512) (i32.const 6) (i32.const 1024))
    (if (i32.load8_u (i32.const 1024)) (then unreachable))
    (local.set $bucket (i32.load (i32.const 1028)))
    (if (i32.eq (local.get $what) (i32.const 105)) (then (i32.store8 (i32.const 544) (i32.const 110))))
    (local.set $before (global.get $next))
    (block $end
      (loop $more
        (br_if $end (i32.ge_u (local.get $done) (local.get $calls)))
        ;; Two digits of base 32: characters from '0' on.
        (i32.store8 (i32.const 546)
          (i32.add (i32.const 48) (i32.and (i32.shr_u (local.get $done) (i32.const 5)) (i32.const 31))))
        (i32.store8 (i32.const 547) (i32.add (i32.const 48) (i32.and (local.get $done) (i32.const 31))))
        (if (i32.eq (local.get $what) (i32.const 103)) (then
          (call $get (local.get $bucket) (i32.const 544) (i32.const 4) (i32.const 1024))
          ;; A value of 16 bytes, or this is no measurement.
          (if (i32.eqz (i32.load8_u (i32.const 1028))) (then unreachable))
          (if (i32.ne (i32.load (i32.const 1036)) (i32.const 16)) (then unreachable))))
        (if (i32.eq (local.get $what) (i32.const 115)) (then
          (call $set (local.get $bucket) (i32.const 544) (i32.const 4) (i32.const 520) (i32.const 16) (i32.const 1024))))
        (if (i32.eq (local.get $what) (i32.const 101)) (then
          (call $exists (local.get $bucket) (i32.const 544) (i32.const 4) (i32.const 1024))))
        (if (i32.eq (local.get $what) (i32.const 105)) (then
          (call $increment (local.get $bucket) (i32.const 544) (i32.const 4) (i64.const 1) (i32.const 1024))))
        (if (i32.load8_u (i32.const 1024)) (then unreachable))
        (global.set $next (local.get $before))
        (local.set $done (i32.add (local.get $done) (i32.const 1)))
        (br $more)))
    (i32.store (i32.const 2048) (local.get $done))
    (i32.store8 (i32.const 1024) (i32.const 0))
    (i32.store (i32.const 1028) (i32.const 0))
    (i32.store (i32.const 1032) (i32.const 0))
    (i32.store (i32.const 1036) (i32.const 2048))
    (i32.store (i32.const 1040) (i32.const 4))
    (i32.const 1024)))

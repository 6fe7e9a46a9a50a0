;; Answers with the body and media type of the request, out of the memory they arrived in.
(module
  (memory (export "memory") 1)
  (global $next (mut i32) (i32.const 1024))

  ;; Room for what the host hands over: taken from the end, never given back.
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
    (param i32 i32) (param $type i32) (param $type_length i32) (param $body i32) (param $body_length i32) (param i32 i32)
    (result i32)
    (i32.store8 (i32.const 0) (i32.const 0))
    (i32.store (i32.const 4) (local.get $type))
    (i32.store (i32.const 8) (local.get $type_length))
    (i32.store (i32.const 12) (local.get $body))
    (i32.store (i32.const 16) (local.get $body_length))
    (i32.const 0)))

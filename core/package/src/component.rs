//! What bytes a function is made of, told without compiling: a component, or which other thing.
//!
//! A binary begins with `\0asm`, a version (u16) and a layer (u16), little-endian: layer 0 is a core
//! module, layer 1 a component. What compilers make of a component ahead of time is an ELF file, which
//! nobody could check: a machine runs it as it is, so an enclave makes its own.

use aws_lc_rs::digest::{SHA256, digest};

/// SHA-256 of a component's bytes: which code it is.
///
/// # Errors
/// The bytes are something else, which the error names. What follows the first bytes is not looked at.
pub fn component_digest(bytes: &[u8]) -> Result<[u8; 32], NotAComponent> {
    match bytes {
        [b'\0', b'a', b's', b'm', 0x0d, 0, 1, 0, ..] => {}
        [b'\0', b'a', b's', b'm', _, _, 0, 0, ..] => return Err(NotAComponent::Module),
        [b'\0', b'a', b's', b'm', ..] => return Err(NotAComponent::Version),
        [0x7f, b'E', b'L', b'F', ..] => return Err(NotAComponent::Compiled),
        _ => return Err(NotAComponent::Other),
    }
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(digest(&SHA256, bytes).as_ref());
    Ok(sha256)
}

/// Bytes that are no component.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotAComponent {
    /// A core module.
    #[error(
        "a WebAssembly core module, not a component: build a component (`wasm-tools component new`, \
         or a toolchain that makes one) and try again"
    )]
    Module,
    /// Of a version of the component format that is not known.
    #[error(
        "a WebAssembly binary of a version that bield does not know: build it with a toolchain of WASI 0.2"
    )]
    Version,
    /// Compiled ahead of time.
    #[error(
        "compiled machine code (.cwasm or ELF), which is never accepted: nobody could check what it does; \
         give the .wasm it was made from, the enclave compiles it itself"
    )]
    Compiled,
    /// Something else.
    #[error("no WebAssembly component: it does not begin as one")]
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_is_told_from_what_is_not_one() {
        let component = b"\0asm\x0d\0\x01\0rest";
        let digest = component_digest(component).unwrap();
        assert_ne!(Ok(digest), component_digest(&component[..10]));
        for (bytes, expected) in [
            (&b"\0asm\x01\0\0\0"[..], NotAComponent::Module),
            (b"\0asm\x0e\0\x01\0", NotAComponent::Version),
            (b"\0asm\x0d\0\x02\0", NotAComponent::Version),
            (b"\0asm", NotAComponent::Version),
            (b"\x7fELF\x02\x01\x01", NotAComponent::Compiled),
            (b"", NotAComponent::Other),
            (b"RTEN", NotAComponent::Other),
        ] {
            assert_eq!(component_digest(bytes), Err(expected), "{bytes:?}");
        }
    }
}

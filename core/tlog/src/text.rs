//! The two spellings all forms share: decimal numbers and base64, each with one spelling per value.
//!
//! Decimal: ASCII digits, no sign, no leading zero, below 2⁶⁴. Base64: RFC 4648 §4 with padding
//! and no stray bits in the last symbol.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Reads a decimal number; `None` for every spelling that [`u64`] would not print.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = text.len() > 1 && text.starts_with('0');
    if !digits || leading_zero {
        return None;
    }
    text.parse().ok()
}

/// Writes base64.
pub(crate) fn base64(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

/// Reads base64.
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_one_spelling() {
        assert_eq!(decimal("0"), Some(0));
        assert_eq!(decimal("18446744073709551615"), Some(u64::MAX));
        for other in [
            "",
            "00",
            "01",
            "+1",
            "-1",
            " 1",
            "1 ",
            "1_0",
            "0x1",
            "١",
            "18446744073709551616",
        ] {
            assert_eq!(decimal(other), None, "{other}");
        }
    }

    #[test]
    fn bytes_have_one_spelling() {
        assert_eq!(from_base64("AA=="), Some(vec![0]));
        for other in ["AA", "AA=", "AB==", "AA==\n", "A A=", "-_==", "===="] {
            assert_eq!(from_base64(other), None, "{other}");
        }
    }
}

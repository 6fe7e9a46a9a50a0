//! Certificates in the one PEM form that is accepted: RFC 7468 strict, 64 columns, line feeds.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Decodes concatenated certificates; `None` for anything but their canonical text.
pub(crate) fn certificates(text: &str) -> Option<Vec<Vec<u8>>> {
    let mut rest = text;
    let mut certificates = Vec::new();
    while !rest.is_empty() {
        let body = rest.strip_prefix(BEGIN)?;
        let (body, after) = body.split_once(END)?;
        let der = STANDARD.decode(body.replace('\n', "")).ok()?;
        // The same text again: no other line length, spacing or base64 ending stands for these bytes.
        let canonical = encode(&der);
        rest = rest.strip_prefix(canonical.as_str())?;
        debug_assert_eq!(rest, after);
        certificates.push(der);
    }
    Some(certificates)
}

/// Writes one certificate.
fn encode(der: &[u8]) -> String {
    let digits = STANDARD.encode(der);
    let mut text = String::with_capacity(digits.len() * 65 / 64 + 60);
    text.push_str(BEGIN);
    let mut rest = digits.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str(END);
    text
}

const BEGIN: &str = "-----BEGIN CERTIFICATE-----\n";
const END: &str = "-----END CERTIFICATE-----\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_text_is_accepted() {
        let text = encode(&[7; 100]) + &encode(&[8; 49]);
        assert_eq!(certificates(&text), Some(vec![vec![7; 100], vec![8; 49]]));
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            let same = String::from_utf8(bytes).ok().and_then(|t| certificates(&t));
            assert_ne!(same, certificates(&text), "byte {at}");
        }
        assert_eq!(certificates(&text.replace('\n', "\r\n")), None);
        assert_eq!(certificates(&(text + " ")), None);
    }
}

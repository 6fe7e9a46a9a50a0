//! The SGX extension of a PCK certificate: which platform this is and how patched it is.
//!
//! Intel, "SGX PCK Certificate and CRL Profile Specification", §1.3.5: a sequence of {OID, value}
//! under 1.2.840.113741.1.13.1. Written by hand, since it is forty lines of DER with lengths below
//! 64 KiB and no choices.

/// OID of the extension.
pub(crate) const OID: &[u64] = &[1, 2, 840, 113741, 1, 13, 1];

/// What the extension says about a platform.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// Names this platform (16 bytes).
    pub(crate) ppid: [u8; 16],
    /// Family, model and platform kind; selects the TCB information that applies.
    pub(crate) fmspc: [u8; 6],
    /// Patch level of each of the 16 components.
    pub(crate) cpu_svn: [u8; 16],
    /// Patch level of the provisioning enclave.
    pub(crate) pce_svn: u16,
    /// The platform's packages can change after registration.
    pub(crate) dynamic_platform: bool,
    /// Its keys are cached by the registration service.
    pub(crate) cached_keys: bool,
    /// Simultaneous multithreading is on.
    pub(crate) smt: bool,
}

/// Encodes `identity` as the DER value of the extension.
pub(crate) fn encode(identity: &Identity) -> Vec<u8> {
    let mut tcb: Vec<Vec<u8>> = (1u8..)
        .zip(identity.cpu_svn)
        .map(|(index, svn)| entry(&[2, index], integer(svn.into())))
        .collect();
    tcb.push(entry(&[2, 17], integer(identity.pce_svn)));
    tcb.push(entry(&[2, 18], octets(&identity.cpu_svn)));
    let configuration = [
        entry(&[7, 1], boolean(identity.dynamic_platform)),
        entry(&[7, 2], boolean(identity.cached_keys)),
        entry(&[7, 3], boolean(identity.smt)),
    ];
    sequence(&[
        entry(&[1], octets(&identity.ppid)),
        entry(&[2], sequence(&tcb)),
        entry(&[3], octets(&PCE_ID)),
        entry(&[4], octets(&identity.fmspc)),
        entry(&[5], tagged(ENUMERATED, &[SGX_TYPE_STANDARD])),
        entry(&[6], octets(&identity.ppid)),
        entry(&[7], sequence(&configuration)),
    ])
}

fn entry(below: &[u8], value: Vec<u8>) -> Vec<u8> {
    let oid = [&OID_DER[..], below].concat();
    sequence(&[tagged(OBJECT_IDENTIFIER, &oid), value])
}

fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    tagged(SEQUENCE, &parts.concat())
}

fn octets(bytes: &[u8]) -> Vec<u8> {
    tagged(OCTET_STRING, bytes)
}

fn boolean(value: bool) -> Vec<u8> {
    tagged(BOOLEAN, &[if value { 0xff } else { 0 }])
}

/// The shortest two's complement form, as DER demands.
fn integer(value: u16) -> Vec<u8> {
    let padded = [&[0][..], &value.to_be_bytes()].concat();
    let mut start = 0;
    while start < 2 && padded[start] == 0 && padded[start + 1] < 0x80 {
        start += 1;
    }
    tagged(INTEGER, &padded[start..])
}

fn tagged(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).expect("the extension is below 64 KiB");
    let [high, low] = length.to_be_bytes();
    let header = match length {
        0..0x80 => vec![tag, low],
        0x80..0x100 => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    [&header, body].concat()
}

/// [`OID`] in DER: 1.2.840.113741.1.13.1.
const OID_DER: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf8, 0x4d, 0x01, 0x0d, 0x01];
/// The only provisioning enclave there is.
const PCE_ID: [u8; 2] = [0, 0];
const SGX_TYPE_STANDARD: u8 = 0;

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const ENUMERATED: u8 = 0x0a;
const SEQUENCE: u8 = 0x30;

#[cfg(test)]
mod tests {
    use super::integer;

    #[test]
    fn integers_take_their_shortest_form() {
        assert_eq!(integer(0), [2, 1, 0]);
        assert_eq!(integer(0x7f), [2, 1, 0x7f]);
        assert_eq!(integer(0x80), [2, 2, 0, 0x80]);
        assert_eq!(integer(0x7fff), [2, 2, 0x7f, 0xff]);
        assert_eq!(integer(0x8000), [2, 3, 0, 0x80, 0]);
    }
}

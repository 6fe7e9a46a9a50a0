//! COSE_Sign1 written by hand from RFC 9052, so that the vectors do not rest on the code they check.

use aws_lc_rs::signature::Ed25519KeyPair;
use bield_envelope::SigningKey;
use minicbor::Encoder;

/// The whole structure, RFC 9052 §4.2.
pub(crate) fn cose_sign1(signer: &SigningKey, domain: &str, payload: &[u8]) -> Vec<u8> {
    let key = Ed25519KeyPair::from_seed_unchecked(signer.seed().expose()).unwrap();
    let signature = key.sign(&sig_structure(signer, domain, payload));
    let mut e = Encoder::new(vec![0xd2]);
    e.array(4).unwrap();
    e.bytes(&protected(signer)).unwrap().map(0).unwrap();
    e.bytes(payload).unwrap().bytes(signature.as_ref()).unwrap();
    e.into_writer()
}

/// `Sig_structure`, RFC 9052 §4.4.
pub(crate) fn sig_structure(signer: &SigningKey, domain: &str, payload: &[u8]) -> Vec<u8> {
    let mut e = Encoder::new(Vec::new());
    e.array(4).unwrap().str("Signature1").unwrap();
    e.bytes(&protected(signer)).unwrap();
    e.bytes(domain.as_bytes()).unwrap().bytes(payload).unwrap();
    e.into_writer()
}

fn protected(signer: &SigningKey) -> Vec<u8> {
    let header = [0xa2, 0x01, 0x27, 0x04, 0x58, 0x20];
    [&header[..], signer.principal().as_bytes()].concat()
}

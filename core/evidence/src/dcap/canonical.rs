//! The one accepted form of a quote and its collateral.
//!
//! Signatures cover the quote's header, body, attestation key and QE report, and the signed parts of
//! the collateral. Everything around them (padding, the PEM text, issuer chains, JSON spacing) could
//! otherwise be changed at will by whoever carries the evidence. Rules, spec/02 §3.1 and §3.2:
//!
//! * the quote re-encodes to itself: no padding, inner lengths exact, certification type 5 (in 6);
//! * its PCK chain is leaf, CA, root in PEM with 64-column lines, one optional NUL after it;
//! * the collateral is compact JSON without an own PCK chain; its issuer chains are
//!   [signer, root], [signer, root] and the same [CA, root] as in the quote.
//!
//! [`make`] brings what platforms and collateral services deliver into that form.

use dcap_qvl::QuoteCollateralV3;
use dcap_qvl::quote::{AuthData, Quote};
use parity_scale_codec::Encode as _;

use crate::evidence::{Endorsements, Evidence};
use crate::measurement::TeeKind;
use crate::pem;
use crate::verify::EvidenceError;

/// Largest quote, in bytes: real ones are 4.6 to 5.3 KB, some clouds pad to 8000.
pub(crate) const QUOTE_BYTES_MAX: usize = 16 * 1024;

/// Parsed evidence in canonical form.
pub(crate) struct Parts {
    pub(crate) quote: Quote,
    pub(crate) collateral: QuoteCollateralV3,
    /// The root certificate every chain ends at.
    pub(crate) root: Vec<u8>,
}

/// Checks that quote and collateral are canonical and end at one root.
pub(crate) fn check(quote: &[u8], collateral: &[u8]) -> Result<Parts, EvidenceError> {
    let (quote, [_, authority, root]) = check_quote(quote)?;
    let parsed: QuoteCollateralV3 =
        serde_json::from_slice(collateral).map_err(|_| malformed("collateral"))?;
    let again = serde_json::to_vec(&parsed).map_err(|_| malformed("collateral"))?;
    if again != collateral {
        return Err(not_canonical("collateral is not compact JSON"));
    }
    if parsed.pck_certificate_chain.is_some() {
        return Err(not_canonical("collateral repeats the quote's PCK chain"));
    }
    for signature in [&parsed.tcb_info_signature, &parsed.qe_identity_signature] {
        if signature.len() != 64 {
            return Err(malformed("collateral signature"));
        }
    }
    for chain in [
        &parsed.tcb_info_issuer_chain,
        &parsed.qe_identity_issuer_chain,
    ] {
        if !matches!(&chain_of::<2>(chain)?, [_, end] if *end == root) {
            return Err(not_canonical("collateral issuer chain"));
        }
    }
    if chain_of::<2>(&parsed.pck_crl_issuer_chain)? != [authority, root.clone()] {
        return Err(not_canonical("revocation list issuer chain"));
    }
    Ok(Parts {
        quote,
        collateral: parsed,
        root,
    })
}

/// Makes canonical evidence from what a platform and a collateral service deliver.
///
/// `quote` may be zero-padded; `collateral` is `QuoteCollateralV3` as JSON in any spacing, with or
/// without a PCK chain of its own. The claims buffer is left empty.
///
/// # Errors
/// The bytes do not parse, non-zero bytes follow the quote, or a chain has another shape.
pub fn make(quote: &[u8], collateral: &[u8]) -> Result<Evidence, EvidenceError> {
    let parsed = parse(quote)?;
    let exact = parsed.encode();
    let padding = quote
        .strip_prefix(&exact[..])
        .ok_or_else(|| not_canonical("quote layout"))?;
    if padding.iter().any(|byte| *byte != 0) {
        return Err(not_canonical("bytes after the quote"));
    }
    let mut collateral: QuoteCollateralV3 =
        serde_json::from_slice(collateral).map_err(|_| malformed("collateral"))?;
    collateral.pck_certificate_chain = None;
    let collateral = serde_json::to_vec(&collateral).map_err(|_| malformed("collateral"))?;
    check(&exact, &collateral)?;
    Ok(Evidence {
        kind: if parsed.header.is_sgx() {
            TeeKind::Sgx
        } else {
            TeeKind::Tdx
        },
        quote: exact,
        claims_buffer: Vec::new(),
        endorsements: Endorsements::Dcap(collateral),
    })
}

fn check_quote(bytes: &[u8]) -> Result<(Quote, [Vec<u8>; 3]), EvidenceError> {
    let quote = parse(bytes)?;
    if quote.encode() != bytes {
        return Err(not_canonical("quote layout or bytes after the quote"));
    }
    if let AuthData::V4(auth) = &quote.auth_data
        && auth.certification_data.cert_type != CERTIFICATION_QE_REPORT
    {
        return Err(malformed("certification data type"));
    }
    if quote.inner_cert_type() != CERTIFICATION_PCK_CHAIN {
        return Err(malformed("certification data type"));
    }
    let text = quote.inner_cert_data();
    let text = core::str::from_utf8(text.strip_suffix(&[0]).unwrap_or(text))
        .map_err(|_| not_canonical("PCK certificate chain"))?;
    let chain = chain_of::<3>(text)?;
    Ok((quote, chain))
}

fn parse(bytes: &[u8]) -> Result<Quote, EvidenceError> {
    if bytes.len() > QUOTE_BYTES_MAX {
        return Err(malformed("quote longer than allowed"));
    }
    Quote::parse(bytes).map_err(|_| malformed("quote"))
}

fn chain_of<const N: usize>(text: &str) -> Result<[Vec<u8>; N], EvidenceError> {
    pem::certificates(text)
        .and_then(|chain| <[Vec<u8>; N]>::try_from(chain).ok())
        .ok_or_else(|| not_canonical("certificate chain"))
}

/// Certification data types, Intel DCAP quote library API, "QE certification data".
const CERTIFICATION_PCK_CHAIN: u16 = 5;
const CERTIFICATION_QE_REPORT: u16 = 6;

const fn malformed(what: &'static str) -> EvidenceError {
    EvidenceError::Malformed { what }
}

const fn not_canonical(what: &'static str) -> EvidenceError {
    EvidenceError::NotCanonical { what }
}

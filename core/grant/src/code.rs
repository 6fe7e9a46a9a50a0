//! Which code: one measurement, or whatever one signer released from a version on.
//!
//! ```text
//!   Claims ─▶ CodeIdentity { measurement, signer, product, svn }
//!                  │
//!   CodeSelector ──┴─ admits ─▶ bool       Measurement(m)           measurement = m
//!                                          Signed(kind, signer, …)  kind, signer, product, svn ≥ min
//! ```
//!
//! Always true: a signer is named only for hardware that checks the signer's signature before the
//! code starts (SGX, SNP with an ID block). A TD's MROWNER is a field that the host fills in: it
//! proves nothing, never becomes a [`CodeIdentity::signer`] and cannot be selected. Neither can the
//! signer of 32 or 48 zero bytes, which stands for "none".
//!
//! What a signer answers for: every configuration that its code accepts. A measurement covers the
//! configuration where the TEE measures it (`spec/04 §3.3`).

use core::fmt;
use core::str::FromStr;

use bield_evidence::{Claims, Measurement, TeeKind};
use minicbor::decode::{self, Decoder};
use minicbor::encode::{self, Encoder};
use minicbor::{Decode, Encode};

/// Which code a grant, or a user, allows.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
pub enum CodeSelector {
    /// Exactly this code.
    #[n(0)]
    Measurement(#[n(0)] Measurement),
    /// What this signer released, from a security version on.
    #[n(1)]
    Signed(#[n(0)] CodeSigner),
}

impl CodeSelector {
    /// Tells whether code that proved to be `code` is allowed.
    #[must_use]
    pub fn admits(&self, code: &CodeIdentity) -> bool {
        match self {
            Self::Measurement(measurement) => *measurement == code.measurement,
            Self::Signed(signer) => signer.admits(code),
        }
    }
}

/// Who signed the code, which product it is and how recent.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode)]
#[cbor(map)]
pub struct CodeSigner {
    #[n(0)]
    kind: TeeKind,
    #[n(1)]
    signer: SignerId,
    #[n(2)]
    product: Option<u16>,
    #[n(3)]
    svn_min: u32,
}

impl CodeSigner {
    /// Names a signer: MRSIGNER (32 bytes) or the SNP id key digest (48 bytes). `product` is
    /// ISVPRODID (SGX only), `None` for every product; `svn_min` is the lowest ISVSVN or guest SVN.
    ///
    /// # Errors
    /// [`InvalidSigner`]: TDX, another length, all zeros, or a product that the hardware has not.
    pub fn new(
        kind: TeeKind,
        signer: &[u8],
        product: Option<u16>,
        svn_min: u32,
    ) -> Result<Self, InvalidSigner> {
        if product.is_some() && kind != TeeKind::Sgx {
            return Err(InvalidSigner);
        }
        Ok(Self {
            kind,
            signer: SignerId::new(kind, signer)?,
            product,
            svn_min,
        })
    }

    /// The hardware family.
    #[must_use]
    pub const fn kind(&self) -> TeeKind {
        self.kind
    }

    /// The signer.
    #[must_use]
    pub const fn signer(&self) -> &SignerId {
        &self.signer
    }

    /// The only product allowed; `None`: every one of this signer.
    #[must_use]
    pub const fn product(&self) -> Option<u16> {
        self.product
    }

    /// The lowest security version allowed.
    #[must_use]
    pub const fn svn_min(&self) -> u32 {
        self.svn_min
    }

    fn admits(&self, code: &CodeIdentity) -> bool {
        self.kind == code.measurement.kind()
            && code.signer.as_ref() == Some(&self.signer)
            && (self.product.is_none() || self.product == code.product)
            && code.svn.is_some_and(|svn| svn >= self.svn_min)
    }
}

impl<'b, C> Decode<'b, C> for CodeSigner {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, decode::Error> {
        let fields = CodeSignerFields::decode(d, ctx)?;
        let CodeSignerFields {
            kind,
            signer,
            product,
            svn_min,
        } = fields;
        Self::new(kind, signer.as_bytes(), product, svn_min).map_err(decode::Error::custom)
    }
}

/// As it stands on the wire, before kind and signer were found to fit.
#[derive(Decode)]
#[cbor(map)]
struct CodeSignerFields {
    #[n(0)]
    kind: TeeKind,
    #[n(1)]
    signer: SignerId,
    #[n(2)]
    product: Option<u16>,
    #[n(3)]
    svn_min: u32,
}

/// A signer's identity as the hardware reports it: 32 bytes (MRSIGNER) or 48 (SNP id key digest),
/// not all zero. Prints as lower-case hexadecimal digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SignerId(Vec<u8>);

impl SignerId {
    /// Takes the identity of a signer whose signature hardware of this kind checks.
    ///
    /// # Errors
    /// [`InvalidSigner`]: the hardware checks no signer, the length is another, or all is zero.
    pub fn new(kind: TeeKind, bytes: &[u8]) -> Result<Self, InvalidSigner> {
        let expected = match kind {
            TeeKind::Sgx => MRSIGNER_BYTES,
            TeeKind::Snp => ID_KEY_DIGEST_BYTES,
            TeeKind::Tdx => return Err(InvalidSigner),
        };
        if bytes.len() != expected {
            return Err(InvalidSigner);
        }
        Self::of_any_kind(bytes).ok_or(InvalidSigner)
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn of_any_kind(bytes: &[u8]) -> Option<Self> {
        let fits = matches!(bytes.len(), MRSIGNER_BYTES | ID_KEY_DIGEST_BYTES);
        (fits && bytes.iter().any(|byte| *byte != 0)).then(|| Self(bytes.to_vec()))
    }
}

impl fmt::Display for SignerId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for SignerId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl<C> Encode<C> for SignerId {
    fn encode<W: encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for SignerId {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        Self::of_any_kind(d.bytes()?).ok_or_else(|| decode::Error::custom(InvalidSigner))
    }
}

/// What evidence proved about the code that runs.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
#[cbor(map)]
pub struct CodeIdentity {
    /// Identity of the code itself.
    #[n(0)]
    pub measurement: Measurement,
    /// Who signed it, where the hardware checked that signature; else `None`.
    #[n(1)]
    pub signer: Option<SignerId>,
    /// The signer's number for the product (SGX).
    #[n(2)]
    pub product: Option<u16>,
    /// The signer's security version of the code.
    #[n(3)]
    pub svn: Option<u32>,
}

impl CodeIdentity {
    /// Takes the code's identity out of verified claims.
    #[must_use]
    pub fn of(claims: &Claims) -> Self {
        Self {
            measurement: claims.measurement.clone(),
            signer: claims
                .signer
                .as_ref()
                .and_then(|signer| SignerId::new(claims.kind, signer).ok()),
            product: claims.product,
            svn: claims.svn,
        }
    }

    /// Code of which no more than the measurement is known: no signer selects it.
    #[must_use]
    pub const fn measured(measurement: Measurement) -> Self {
        Self {
            measurement,
            signer: None,
            product: None,
            svn: None,
        }
    }
}

/// The measurement, and in brackets what is known of its signer.
impl fmt::Display for CodeIdentity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.measurement, out)?;
        let Some(signer) = &self.signer else {
            return Ok(());
        };
        write!(out, " (signer {signer}")?;
        if let Some(product) = self.product {
            write!(out, ", product {product}")?;
        }
        if let Some(svn) = self.svn {
            write!(out, ", svn {svn}")?;
        }
        out.write_str(")")
    }
}

/// `sgx:<hex>` for a measurement, else `sgx-signer:<hex>[,product=N],svn>=N`.
impl fmt::Display for CodeSelector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Measurement(measurement) => fmt::Display::fmt(measurement, out),
            Self::Signed(signer) => fmt::Display::fmt(signer, out),
        }
    }
}

impl fmt::Display for CodeSigner {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}{SIGNER}{}", self.kind, self.signer)?;
        if let Some(product) = self.product {
            write!(out, ",{PRODUCT}{product}")?;
        }
        write!(out, ",{SVN}{}", self.svn_min)
    }
}

impl FromStr for CodeSelector {
    type Err = InvalidCodeSelector;

    fn from_str(text: &str) -> Result<Self, InvalidCodeSelector> {
        let Some((kind, rest)) = text.split_once(SIGNER) else {
            let measurement = text.parse().map_err(|_| InvalidCodeSelector)?;
            return Ok(Self::Measurement(measurement));
        };
        signer(kind, rest)
            .map(Self::Signed)
            .ok_or(InvalidCodeSelector)
    }
}

fn signer(kind: &str, rest: &str) -> Option<CodeSigner> {
    let kind = match kind {
        "sgx" => TeeKind::Sgx,
        "snp" => TeeKind::Snp,
        _ => return None,
    };
    let mut parts = rest.split(',');
    let bytes = hex::decode(parts.next()?).ok()?;
    let (product, svn) = match (parts.next()?, parts.next()) {
        (product, Some(svn)) => (Some(number(product, PRODUCT)?), svn),
        (svn, None) => (None, svn),
    };
    if parts.next().is_some() {
        return None;
    }
    CodeSigner::new(kind, &bytes, product, number(svn, SVN)?).ok()
}

/// Reads a number as it prints: no sign, no leading zeros.
fn number<T: FromStr + fmt::Display>(text: &str, before: &str) -> Option<T> {
    let digits = text.strip_prefix(before)?;
    let number: T = digits.parse().ok()?;
    (number.to_string() == digits).then_some(number)
}

const SIGNER: &str = "-signer:";
const PRODUCT: &str = "product=";
const SVN: &str = "svn>=";
/// Bytes of MRSIGNER (Intel SDM vol. 3D).
const MRSIGNER_BYTES: usize = 32;
/// Bytes of ID_KEY_DIGEST (AMD SEV-SNP ABI, attestation report).
const ID_KEY_DIGEST_BYTES: usize = 48;

/// This is no signer that hardware checks; whoever wrote it names another, or a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a signer of code is an MRSIGNER (sgx, 32 bytes, with or without a product number) or an id key \
     digest (snp, 48 bytes), and not all zero; tdx checks no signer: name the measurement instead"
)]
pub struct InvalidSigner;

/// The text selects no code; whoever wrote it writes it anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "code is a measurement (sgx:<64 hex digits>, tdx:<96>, snp:<96>) or a signer with a lowest \
     security version (sgx-signer:<64 hex digits>,product=1,svn>=3 or snp-signer:<96>,svn>=3)"
)]
pub struct InvalidCodeSelector;

#[cfg(test)]
mod tests;

//! What a TEE says it runs, as one comparable value.
//!
//! | kind | bytes | made of |
//! |---|---|---|
//! | `sgx` | 32 | MRENCLAVE; for the software TEE: [`software_measurement`] |
//! | `tdx` | 48 | SHA-384(label ‖ MRTD ‖ RTMR0 ‖ RTMR1 ‖ RTMR2 ‖ RTMR3), see [`tdx_measurement`] |
//! | `snp` | 48 | launch MEASUREMENT |
//!
//! Always true: a value of this type has the length of its kind, so two kinds never compare equal.

use core::fmt;
use core::str::FromStr;

use bield_envelope::Digest;
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha384};

/// Family of hardware whose evidence this is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize,
)]
#[cbor(index_only)]
#[serde(rename_all = "lowercase")]
pub enum TeeKind {
    /// Intel SGX enclave, DCAP quote version 3.
    #[n(1)]
    Sgx,
    /// Intel TDX virtual machine, DCAP quote version 4 or 5.
    #[n(2)]
    Tdx,
    /// AMD SEV-SNP virtual machine, attestation report version 2 to 5.
    #[n(3)]
    Snp,
}

impl TeeKind {
    /// Bytes of a measurement of this kind.
    #[must_use]
    pub const fn measurement_bytes(self) -> usize {
        match self {
            Self::Sgx => 32,
            Self::Tdx | Self::Snp => 48,
        }
    }

    /// The name used in text forms: `sgx`, `tdx`, `snp`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sgx => "sgx",
            Self::Tdx => "tdx",
            Self::Snp => "snp",
        }
    }
}

impl fmt::Display for TeeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Identity of measured code; prints and parses as `kind:<lower-case hex>`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Measurement {
    kind: TeeKind,
    bytes: Vec<u8>,
}

impl Measurement {
    /// Takes the bytes of a measurement.
    ///
    /// # Errors
    /// The length is not that of `kind`.
    pub fn new(kind: TeeKind, bytes: &[u8]) -> Result<Self, ParseMeasurementError> {
        if bytes.len() != kind.measurement_bytes() {
            return Err(ParseMeasurementError);
        }
        Ok(Self {
            kind,
            bytes: bytes.to_vec(),
        })
    }

    /// The hardware family.
    #[must_use]
    pub const fn kind(&self) -> TeeKind {
        self.kind
    }

    /// The raw bytes, 32 or 48 of them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns kind and the first 12 hexadecimal digits, for people; never for comparison.
    #[must_use]
    pub fn short(&self) -> String {
        format!("{}:{}", self.kind, hex::encode(&self.bytes[..6]))
    }
}

impl fmt::Display for Measurement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, hex::encode(&self.bytes))
    }
}

impl fmt::Debug for Measurement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text or bytes are no measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a measurement is written sgx:<64 hex digits>, tdx:<96 hex digits> or snp:<96 hex digits>")]
pub struct ParseMeasurementError;

impl FromStr for Measurement {
    type Err = ParseMeasurementError;

    fn from_str(text: &str) -> Result<Self, ParseMeasurementError> {
        let (kind, digits) = text.split_once(':').ok_or(ParseMeasurementError)?;
        let kind = match kind {
            "sgx" => TeeKind::Sgx,
            "tdx" => TeeKind::Tdx,
            "snp" => TeeKind::Snp,
            _ => return Err(ParseMeasurementError),
        };
        Self::new(
            kind,
            &hex::decode(digits).map_err(|_| ParseMeasurementError)?,
        )
    }
}

/// CBOR: `[kind, bytes]`.
impl<C> Encode<C> for Measurement {
    fn encode<W: encode::Write>(
        &self,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.array(2)?;
        self.kind.encode(e, ctx)?;
        e.bytes(&self.bytes)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Measurement {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, decode::Error> {
        if d.array()? != Some(2) {
            return Err(decode::Error::message("expected [kind, bytes]"));
        }
        let kind = TeeKind::decode(d, ctx)?;
        Self::new(kind, d.bytes()?).map_err(|_| decode::Error::message("length of another kind"))
    }
}

impl Serialize for Measurement {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Measurement {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Measures a program run by the software TEE together with its measured configuration.
///
/// The result stands in the MRENCLAVE field of its SGX-shaped quote (spec/02 §4.3).
#[must_use]
pub fn software_measurement(program: Digest, configuration: Digest) -> Measurement {
    let digest = Digest::of(
        "bield software measurement v1",
        &[program.as_bytes(), configuration.as_bytes()],
    );
    Measurement {
        kind: TeeKind::Sgx,
        bytes: digest.as_bytes().to_vec(),
    }
}

/// Digest of a program's file as the software TEE measures it.
#[must_use]
pub fn program_digest(program: &[u8]) -> Digest {
    Digest::of("bield program v1", &[program])
}

/// Digest of a program's configuration as handed to it at start.
#[must_use]
pub fn configuration_digest(configuration: &[u8]) -> Digest {
    Digest::of("bield configuration v1", &[configuration])
}

/// Folds a TD's five registers (MRTD, RTMR0 to RTMR3) into one measurement.
///
/// RTMR3 is included: whatever a guest extends at run time changes the measurement, so a TD that
/// loads something unmeasured by its reference value is refused rather than waved through.
#[must_use]
pub fn tdx_measurement(registers: &[[u8; 48]; 5]) -> Measurement {
    let mut hash = Sha384::new();
    hash.update(b"bield tdx measurement v1");
    registers.iter().for_each(|register| hash.update(register));
    Measurement {
        kind: TeeKind::Tdx,
        bytes: hash.finalize().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use bield_envelope::wire;

    use super::*;

    #[test]
    fn a_measurement_survives_its_text_and_its_cbor() {
        for (kind, bytes) in [(TeeKind::Sgx, 32), (TeeKind::Tdx, 48), (TeeKind::Snp, 48)] {
            let measurement = Measurement::new(kind, &vec![0xab; bytes]).unwrap();
            assert_eq!(measurement.to_string().parse(), Ok(measurement.clone()));
            let encoded = wire::encode(&measurement);
            assert_eq!(wire::decode(&encoded, 64), Ok(measurement));
        }
    }

    #[test]
    fn a_wrong_length_or_kind_is_refused() {
        let digits = "00".repeat(48);
        for text in [format!("sgx:{digits}"), format!("sev:{digits}"), digits] {
            assert!(text.parse::<Measurement>().is_err(), "{text}");
        }
        assert!(wire::decode::<Measurement>(&[0x82, 0x01, 0x41, 0x00], 64).is_err());
        assert!(wire::decode::<TeeKind>(&[0x00], 64).is_err());
        assert!(wire::decode::<TeeKind>(&[0x04], 64).is_err());
    }

    #[test]
    fn program_and_configuration_both_count_and_do_not_swap() {
        let (a, b) = (program_digest(b"x"), configuration_digest(b"x"));
        assert_ne!(a, b);
        assert_ne!(software_measurement(a, b), software_measurement(b, a));
    }
}

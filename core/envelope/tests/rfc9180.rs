//! RFC 9180 appendix A.1.1 through the HPKE library we build on: DHKEM(X25519, HKDF-SHA256),
//! HKDF-SHA256, AES-128-GCM, base mode. Our own suite differs only in KEM and AEAD.

use core::convert::Infallible;

use hpke::aead::AesGcm128;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use rand_core::{TryCryptoRng, TryRng};

/// Hands out the appendix's `ikmE`, once.
struct Fixed(Vec<u8>);

impl TryRng for Fixed {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        panic!("the vector gives bytes only")
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        panic!("the vector gives bytes only")
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        assert_eq!(self.0.len(), out.len(), "ikmE has another length");
        out.copy_from_slice(&std::mem::take(&mut self.0));
        Ok(())
    }
}

impl TryCryptoRng for Fixed {}

const IKM_E: &str = "7268600d403fce431561aef583ee1613527cff655c1343f29812e66706df3234";
const IKM_R: &str = "6db9df30aa07dd42ee5e8181afdb977e538f5e1fec8a06223f33f7013e525037";
const PK_R: &str = "3948cfe0ad1ddb695d780e59077195da6c56506b027329794ab02bca80815c4d";
const SK_R: &str = "4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8";
const ENC: &str = "37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431";
const INFO: &str = "4f6465206f6e2061204772656369616e2055726e";
const PT: &str = "4265617574792069732074727574682c20747275746820626561757479";
const AAD_0: &str = "436f756e742d30";
const CT_0: &str =
    "f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a";
const EXPORT_EMPTY: &str = "3853fe2b4035195a573ffc53856e77058e15d9ea064de3e59f4961d0095250ee";

fn bytes(text: &str) -> Vec<u8> {
    hex::decode(text).expect("hexadecimal digits")
}

#[test]
fn the_recipient_key_derives_as_in_appendix_a_1_1() {
    let (_, public) = X25519HkdfSha256::derive_keypair(&bytes(IKM_R));
    assert_eq!(public.to_bytes().to_vec(), bytes(PK_R));
    // The library stores X25519 scalars clamped (RFC 7748 §5), so the appendix's are compared by
    // what they do.
    let private = Deserializable::from_bytes(&bytes(SK_R)).unwrap();
    assert_eq!(
        X25519HkdfSha256::sk_to_pk(&private).to_bytes().to_vec(),
        bytes(PK_R)
    );
}

#[test]
fn sealing_gives_the_bytes_of_appendix_a_1_1() {
    let (_, public) = X25519HkdfSha256::derive_keypair(&bytes(IKM_R));
    let (enc, mut sender) = hpke::setup_sender_with_rng::<AesGcm128, HkdfSha256, X25519HkdfSha256>(
        &OpModeS::Base,
        &public,
        &bytes(INFO),
        &mut Fixed(bytes(IKM_E)),
    )
    .unwrap();
    assert_eq!(enc.to_bytes().to_vec(), bytes(ENC));
    assert_eq!(sender.seal(&bytes(PT), &bytes(AAD_0)).unwrap(), bytes(CT_0));
    let mut exported = [0; 32];
    sender.export(b"", &mut exported).unwrap();
    assert_eq!(exported.to_vec(), bytes(EXPORT_EMPTY));
}

#[test]
fn opening_gives_the_plaintext_of_appendix_a_1_1() {
    let (private, _) = X25519HkdfSha256::derive_keypair(&bytes(IKM_R));
    let enc = Deserializable::from_bytes(&bytes(ENC)).unwrap();
    let mut receiver = hpke::setup_receiver::<AesGcm128, HkdfSha256, X25519HkdfSha256>(
        &OpModeR::Base,
        &private,
        &enc,
        &bytes(INFO),
    )
    .unwrap();
    assert_eq!(
        receiver.open(&bytes(CT_0), &bytes(AAD_0)).unwrap(),
        bytes(PT)
    );
}

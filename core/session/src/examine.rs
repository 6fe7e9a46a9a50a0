//! The decision about a peer: its certificate, its proof, its evidence, our policy, in that order.
//!
//! Cheap checks first. In mode fresh the certificate's quote is not looked at: H is the report data
//! of the new quote, and H contains the key, the role, the service and the hardening that the certificate claims.

use bield_envelope::Time;
use bield_evidence::{Appraised, Evidence, appraise, claims_report_data, verify};
use rustls::crypto::CryptoProvider;

use crate::key::verifies;
use crate::{
    Bind, CLOCK_SKEW_MAX, CertificateError, ExpectAttested, Freshness, PeerCertificate, Proof,
    Role, SessionError, signed_bytes,
};

/// Checks at Hello what the certificate says without its quote.
pub(crate) fn certificate(
    expect: &ExpectAttested,
    said: Role,
    certificate: &PeerCertificate,
    now: Time,
) -> Result<(), SessionError> {
    let claims = certificate.claims();
    if claims.role != said {
        return Err(SessionError::RoleMismatch {
            said,
            attested: claims.role,
        });
    }
    let (from, until) = certificate.validity();
    if now.plus(CLOCK_SKEW_MAX) < from || until < now {
        let error = CertificateError::NotValidNow { from, until, now };
        return Err(SessionError::Certificate(error));
    }
    match expect.service {
        Some(expected) if claims.service != Some(expected) => Err(SessionError::OtherService {
            found: claims.service,
            expected,
        }),
        _ => Ok(()),
    }
}

/// Checks the proof over `digest` and appraises the evidence behind it.
pub(crate) fn proof(
    expect: &ExpectAttested,
    certificate: &PeerCertificate,
    bind: Bind,
    digest: &[u8; 64],
    now: Time,
    provider: &CryptoProvider,
) -> Result<(Proof, Appraised), SessionError> {
    let signed = signed_bytes(digest);
    if !verifies(provider, certificate.spki(), &signed, &bind.signature) {
        return Err(SessionError::Binding);
    }
    let claims = certificate.claims();
    let (proof, evidence, report_data) = match (bind.quote, expect.freshness) {
        (Some(quote), _) => {
            let (kind, endorsements) = (claims.kind, bind.endorsements);
            let evidence = Evidence {
                kind,
                quote,
                claims_buffer: Vec::new(),
                endorsements,
            };
            (Proof::Fresh, evidence, *digest)
        }
        (None, Freshness::Fresh) => return Err(SessionError::NotFresh),
        (None, Freshness::Cached { age_max }) => {
            // The time is the peer's own claim; it counts only with the evidence checked below.
            let issued_at = claims.issued_at;
            if now.since(issued_at) > age_max || issued_at > now.plus(CLOCK_SKEW_MAX) {
                return Err(SessionError::Stale {
                    issued_at,
                    now,
                    age_max,
                });
            }
            let evidence = certificate.evidence(bind.endorsements);
            let report_data = claims_report_data(&evidence.claims_buffer);
            (Proof::Cached, evidence, report_data)
        }
    };
    let mut verified = verify(&evidence, &expect.roots, now)
        .map_err(|error| SessionError::Evidence(Box::new(error)))?;
    if verified.report_data != report_data {
        return Err(SessionError::Binding);
    }
    // The evidence covers these claims: by their hash, or by H.
    verified.hardening = Some(claims.hardening.clone());
    let appraised = appraise(&verified, &expect.policy, now)
        .admit(verified)
        .map_err(|refusal| SessionError::Appraisal(Box::new(refusal)))?;
    Ok((proof, appraised))
}

//! Signed statements: what verifies was signed, byte for byte, and means one kind of thing.

use bield_envelope::{Principal, Signed, Statement, wire};
use bield_grant::{Grant, Group, Succeeded};
use bield_package::PackageHeader;
use bield_protocol::service::Command;
use bield_receipt::{
    Anchor, Expected, ExpectedOutput, Receipt, ReceiptBundle, WorkerCertificate, verify,
};

use crate::{cast, vectors};

/// Grants.
pub fn grant_statement(data: &[u8]) -> bool {
    statement::<Grant>(data, &cast::owner().principal(), seeds::grant_statement)
}

/// Groups: what is accepted has its members in order, each once.
pub fn group_statement(data: &[u8]) -> bool {
    let accepted = statement::<Group>(data, &cast::owner().principal(), seeds::group_statement);
    if let Ok(Ok(group)) = Signed::<Group>::decode(data).map(Signed::verify_claimed) {
        assert!(group.members().is_sorted_by(|a, b| a < b));
        assert!(group.members().iter().all(|member| group.contains(member)));
    }
    accepted
}

/// Successions with both halves: what is accepted is the one that was made.
pub fn succession(data: &[u8]) -> bool {
    let Ok(succeeded) = wire::decode::<Succeeded>(data, 1024) else {
        return false;
    };
    assert_eq!(wire::encode(&succeeded), data);
    let Ok(verified) = succeeded.verify() else {
        return false;
    };
    let honest = [
        seeds::succession(),
        vectors::bytes("04-grant", "/succession/both")
            .into_iter()
            .collect(),
    ];
    cast::assert_honest(data, &honest.concat(), "succession");
    assert_ne!(verified.from(), verified.to());
    assert_eq!(wire::encode(&verified.to_succeeded()), data);
    true
}

/// Worker certificates.
pub fn certificate_statement(data: &[u8]) -> bool {
    statement::<WorkerCertificate>(
        data,
        &cast::service().principal(),
        seeds::certificate_statement,
    )
}

/// Receipts.
pub fn receipt_statement(data: &[u8]) -> bool {
    statement::<Receipt>(data, &cast::worker().principal(), seeds::receipt_statement)
}

/// Commands to the key service.
pub fn command_statement(data: &[u8]) -> bool {
    statement::<Command>(data, &cast::owner().principal(), seeds::command_statement)
}

/// Headers of packages.
pub fn header_statement(data: &[u8]) -> bool {
    statement::<PackageHeader>(data, &cast::owner().principal(), seeds::header_statement)
}

/// A receipt with its certificate: what is accepted is one of the bundles that were made.
pub fn receipt_bundle(data: &[u8]) -> bool {
    let Ok(bundle) = ReceiptBundle::decode(data) else {
        return false;
    };
    assert_eq!(bundle.encode(), data);
    let expected = Expected {
        request: Some(cast::digest("request")),
        package: Some(cast::digest("package")),
        output: Some(ExpectedOutput {
            salt: &cast::SALT,
            output: cast::OUTPUT,
        }),
        ..Expected::default()
    };
    let strict = Anchor::new(cast::service().principal());
    assert!(
        verify(&bundle, &strict, expected, cast::NOON).is_err(),
        "a receipt of a software TEE passed the default"
    );
    let anchor = Anchor {
        allow_simulated: true,
        ..strict
    };
    if verify(&bundle, &anchor, expected, cast::NOON).is_err() {
        return false;
    }
    cast::assert_honest(data, &seeds::receipt_bundle(), "receipt bundle");
    true
}

/// Parses `data` as a statement of kind `T`; accepts what `signer` signed.
pub(crate) fn statement<T: Statement>(
    data: &[u8],
    signer: &Principal,
    honest: fn() -> Vec<Vec<u8>>,
) -> bool {
    let Ok(signed) = Signed::<T>::decode(data) else {
        return false;
    };
    assert_eq!(signed.as_bytes(), data);
    let claimed = signed.claimed_signer();
    // Whoever signed: what verifies is one of the statements made here or frozen in the vectors.
    if let Ok(verified) = signed.clone().verify_claimed() {
        let honest = [honest(), seeds::foreign()].concat();
        cast::assert_honest(data, &honest, T::DOMAIN);
        assert_eq!(verified.signer(), claimed);
        let said = wire::encode(&*verified);
        assert!(
            data.windows(said.len()).any(|signed| signed == said),
            "the statement has other bytes than were signed"
        );
    }
    let by_signer = signed.verify(signer);
    if by_signer.is_ok() {
        assert_eq!(claimed, *signer);
    }
    by_signer.is_ok()
}

pub(crate) mod seeds {
    use bield_protocol::service::{GrantId, Listing, Operation, PackageOffer, key_commitment};

    use super::*;

    pub(crate) fn grant_statement() -> Vec<Vec<u8>> {
        [cast::grant(), cast::grant_by_selectors()]
            .map(|grant| cast::bytes(&grant))
            .into()
    }

    pub(crate) fn group_statement() -> Vec<Vec<u8>> {
        [(0, 0), (1, 2), (u64::MAX, 30)]
            .map(|(revision, members)| cast::bytes(&cast::group(revision, members)))
            .into()
    }

    pub(crate) fn succession() -> Vec<Vec<u8>> {
        vec![wire::encode(&cast::succeeded().to_succeeded())]
    }

    pub(crate) fn certificate_statement() -> Vec<Vec<u8>> {
        vec![cast::bytes(&cast::certificate())]
    }

    pub(crate) fn receipt_statement() -> Vec<Vec<u8>> {
        vec![cast::bytes(&cast::receipt())]
    }

    pub(crate) fn header_statement() -> Vec<Vec<u8>> {
        vec![crate::package::head().signed_header().as_bytes().to_vec()]
    }

    pub(crate) fn command_statement() -> Vec<Vec<u8>> {
        commands().map(|command| command.as_bytes().to_vec()).into()
    }

    /// One command of each kind.
    pub(crate) fn commands() -> [Signed<Command>; 6] {
        let head = crate::package::head();
        let offer = PackageOffer {
            header: head.signed_header().clone(),
            inputs: crate::package::specs(),
            outputs: crate::package::specs(),
            key: key_commitment(cast::package_key().seed()),
        };
        [
            Operation::Register,
            Operation::PutPackage(offer),
            Operation::Grant(cast::grant_by_selectors().into_signed()),
            Operation::Revoke(vec![GrantId([9; 16]), GrantId([10; 16])]),
            Operation::PutGroup(cast::group(1, 3).into_signed()),
            Operation::Succeed(cast::succeeded().to_succeeded()),
        ]
        .map(|operation| {
            let command = Command {
                session: [1; 32],
                sequence: 3,
                operation,
            };
            Signed::sign(&cast::owner(), command).into_signed()
        })
    }

    /// Orders beyond those of [`commands`], one of each kind.
    pub(crate) fn further_commands() -> Vec<Signed<Command>> {
        let package = cast::digest("package");
        [
            Operation::DeleteGroup("team".into()),
            Operation::DeletePackage(package),
            Operation::RotateAudience {
                package,
                at_once: true,
            },
            Operation::Unregister,
            Operation::List(Listing::Packages { after: None }),
            Operation::List(Listing::Grants {
                package: Some(package),
                user: Some(cast::user().principal()),
                after: Some(GrantId([9; 16])),
            }),
            Operation::List(Listing::Groups {
                after: Some("team".into()),
            }),
            Operation::List(Listing::ToMe {
                after: Some((cast::owner().principal(), GrantId([9; 16]))),
            }),
            Operation::List(Listing::Me),
            Operation::Audit { from: 1_000 },
            Operation::RotateIdentity,
            Operation::AdmitCode(cast::code()),
            Operation::WithdrawCode(cast::code()),
            Operation::MakeShares {
                holders: vec![cast::owner().principal(), cast::user().principal()],
                threshold: 2,
            },
            Operation::TakeShare,
            Operation::GiveShare {
                share: cast::share().commitment(),
                rehearse: true,
            },
        ]
        .map(|operation| {
            let command = Command {
                session: [1; 32],
                sequence: 4,
                operation,
            };
            Signed::sign(&cast::owner(), command).into_signed()
        })
        .into()
    }

    pub(crate) fn receipt_bundle() -> Vec<Vec<u8>> {
        let bundle = |service_evidence| ReceiptBundle {
            receipt: cast::receipt().into_signed(),
            certificate: cast::certificate().into_signed(),
            service_evidence,
            state: None,
        };
        vec![
            bundle(None).encode(),
            bundle(Some(cast::SERVICE_EVIDENCE.to_vec())).encode(),
        ]
    }

    /// Honest statements of others: they decode, and their signers are not ours.
    pub(crate) fn foreign() -> Vec<Vec<u8>> {
        [
            ("01-envelope", "/statement/cose_sign1"),
            ("04-grant", "/grant/signed"),
            ("04-grant", "/grant_by_selectors/signed"),
            ("04-grant", "/group/signed"),
            ("08-receipt", "/certificate/signed"),
            ("08-receipt", "/receipt/signed"),
            ("08-receipt", "/bundle"),
            ("05-package", "/signed_header"),
        ]
        .into_iter()
        .filter_map(|(file, pointer)| vectors::bytes(file, pointer))
        .collect()
    }
}

//! K7 to K11, K14 to K16: what messages, names and lengths can do.

use super::*;

/// "Request fields are copied into fixed 100-byte arrays": the longest names work, longer ones are no names.
#[test]
fn k07_the_longest_fields_work_and_longer_ones_are_refused() {
    let world = World::started();
    let owner = key(1);
    world.order(&owner, Operation::Register).unwrap();
    let longest = "n".repeat(63);
    let package = world.put(&owner, &longest, "1.0.0").unwrap();
    let named = Grant {
        package: PackageSelector::Named(longest.parse().unwrap(), "*".parse().unwrap()),
        ..grant(1, package)
    };
    world.grant(&owner, named).unwrap();
    assert_eq!(
        world.lease(5, package).unwrap().lease.name.as_str(),
        longest
    );
    for length in [64, 100, 101, 74_000] {
        assert!(
            "n".repeat(length)
                .parse::<bield_package::PackageName>()
                .is_err()
        );
        let reference = PackageReference::Named(owner.principal(), "n".repeat(length), None);
        let request = Request::KeyConfiguration(reference, exactly(5));
        let asked = world.say(&mut session(), request).map(drop);
        assert_eq!(asked, Err("unknown-package".into()));
        let order = Operation::DeleteGroup("g".repeat(length));
        assert!(world.order(&owner, order).is_err());
    }
    assert!(world.lease(5, package).is_ok());
}

/// "Payloads under 32 bytes make `size − 32` wrap": every prefix of every kind of message is refused or decodes.
#[test]
fn k08_short_and_cut_messages_are_refused() {
    let (world, package) = World::with_grant();
    let session = session();
    let command = sign(&session, &key(1), Operation::Register);
    let messages = [
        Request::Command(command).encode().to_vec(),
        Request::Lease(LeaseRequest {
            package,
            returned: None,
        })
        .encode()
        .to_vec(),
        Request::Freshness(Some("kept".into())).encode().to_vec(),
    ];
    for message in messages {
        assert!(Request::decode(&message).is_ok());
        for length in 0..message.len() {
            assert!(
                Request::decode(&message[..length]).is_err(),
                "{length} bytes"
            );
        }
    }
    let to = world.find(package, exactly(5)).unwrap();
    let sealed = seal(&to.key, to.audience, package, &key(2), NOON);
    for length in 0..sealed.len() {
        let Ok(cut) = SealedRequest::parse(&sealed[..length]) else {
            continue;
        };
        let leased = world.lease(5, package).unwrap();
        let seed = Secret::from_bytes(*leased.audience_keys[0].seed.expose());
        assert!(
            bield_envelope::AudienceKey::from_seed(seed)
                .open(&cut)
                .is_err()
        );
        break; // One that parses is enough to ask the key; parsing was asked of all before it.
    }
}

/// "The host's pointer and length are used unchecked": here a host gives bytes, and lengths in them are checked
/// before memory is spent.
#[test]
fn k09_lengths_that_a_file_claims_are_checked() {
    let (mut world, package) = World::with_grant();
    world.end();
    let whole = world.disk.contents();
    for name in whole.keys() {
        for claim in [u32::MAX, (PAYLOAD_BYTES_MAX as u32) * 2, 0] {
            let mut lying = whole.clone();
            let file = lying.get_mut(name).unwrap();
            for (byte, new) in file.iter_mut().zip(claim.to_be_bytes()) {
                *byte = new;
            }
            world.disk.restore(lying);
            assert!(world.start().is_err(), "{name} claims {claim}");
        }
    }
    world.disk.restore(whole);
    world.start().unwrap();
    assert!(world.lease(5, package).is_ok());
}

/// "An add-request-key payload can be replayed as upsert-model-key": what is signed says what it is for.
#[test]
fn k10_what_is_signed_for_one_use_serves_no_other() {
    let (world, package) = World::with_package();
    let owner = key(1);
    // A grant is no command, and a command no grant, though both are signed by the owner.
    let granted = Signed::sign(&owner, grant(1, package)).into_signed();
    let as_command = Signed::<Command>::decode(granted.as_bytes());
    assert!(as_command.is_err() || as_command.unwrap().verify_claimed().is_err());
    let mut with = session();
    let command = sign(&with, &owner, Operation::Grant(granted));
    let as_grant = Signed::<Grant>::decode(command.as_bytes());
    assert!(as_grant.is_err() || as_grant.unwrap().verify(&principal(1)).is_err());
    // Another operation under the same signature is nobody's.
    let other = sign(&with, &owner, Operation::DeletePackage(package));
    let (mut mixed, signature) = (other.as_bytes().to_vec(), command.as_bytes());
    let tail = mixed.len() - 64;
    mixed[tail..].copy_from_slice(&signature[signature.len() - 64..]);
    let mixed = Signed::<Command>::decode(&mixed).unwrap();
    let refused = world.say(&mut with, Request::Command(mixed)).map(drop);
    assert_eq!(refused, Err("invalid-signature".into()));
    // A package's key goes beside the command that commits to it, and beside no other.
    let put = sign(
        &with,
        &owner,
        cast::offer(&header(&owner, "shelter", "2.0.0"), 9),
    );
    let swapped = Request::PutPackage(put, Secret::from_bytes([8; 32]));
    assert_eq!(
        world.say(&mut with, swapped).map(drop),
        Err("other-key".into())
    );
    let register = sign(&with, &owner, Operation::Register);
    let beside = Request::PutPackage(register, Secret::from_bytes([9; 32]));
    assert_eq!(
        world.say(&mut with, beside).map(drop),
        Err("malformed".into())
    );
    assert!(
        world.find(package, exactly(5)).is_err(),
        "nothing was granted"
    );
}

/// "Old payloads roll a key back": nothing that was said counts again, and nothing old undoes anything newer.
#[test]
fn k11_nothing_old_counts_again() {
    let (mut world, package) = World::with_package();
    let owner = key(1);
    let mut with = session();
    let said = Signed::sign(&owner, grant(1, package)).into_signed();
    let command = sign(&with, &owner, Operation::Grant(said.clone()));
    let message = Request::Command(command).encode().to_vec();
    let say = |world: &World, with: &mut Conversation| {
        world
            .say(with, Request::decode(&message).unwrap())
            .map(drop)
    };
    assert_eq!(say(&world, &mut with), Ok(()));
    world.revoke(&owner, 1).unwrap();
    assert_eq!(say(&world, &mut with), Err("out-of-order".into()));
    assert_eq!(say(&world, &mut session()), Err("other-session".into()));
    world.kill();
    world.start().unwrap();
    assert_eq!(say(&world, &mut session()), Err("other-session".into()));
    // Not even its signer brings a revoked grant back, nor an older group, nor another key for the package.
    let again = world.order(&owner, Operation::Grant(said)).map(drop);
    assert_eq!(again, Err("grant-revoked".into()));
    let put = |revision, members: &[u8]| {
        let order = Operation::PutGroup(group(&owner, "readers", revision, members));
        world.order(&owner, order).map(drop)
    };
    put(2, &[]).unwrap();
    assert_eq!(put(1, &[2]), Err("old-revision".into()));
    assert_eq!(put(2, &[2]), Err("old-revision".into()));
    let mut with = session();
    let command = sign(
        &with,
        &owner,
        cast::offer(&header(&owner, "shelter", "1.0.0"), 7),
    );
    let other = Request::PutPackage(command, Secret::from_bytes([7; 32]));
    assert_eq!(
        world.say(&mut with, other).map(drop),
        Err("package-key-differs".into())
    );
}

/// "Record names built from caller text are used as file names": whatever callers call things, the same files
/// are written, and no text is a separator.
#[test]
fn k14_callers_name_no_files_and_no_text_separates() {
    let world = World::started();
    let owner = key(1);
    world.order(&owner, Operation::Register).unwrap();
    let before: Vec<String> = world.disk.contents().into_keys().collect();
    for bad in [
        "../../root",
        "a/b",
        "a|b",
        "log-00000000000000000000",
        "a\0b",
        ".",
        "-a",
    ] {
        let reference = PackageReference::Named(owner.principal(), bad.into(), Some(bad.into()));
        let request = Request::KeyConfiguration(reference, exactly(5));
        assert!(world.say(&mut session(), request).is_err(), "{bad}");
        assert!(
            world
                .order(&owner, Operation::DeleteGroup(bad.into()))
                .is_err()
        );
        assert!(world.freshness(Some(bad)).is_err());
    }
    // "a-b" of one is not "b" of another: places are owner and name, not their text in a row.
    let (one, two) = (
        world.put(&owner, "a-b", "1.0.0").unwrap(),
        world.put(&owner, "a", "1.0.0"),
    );
    let named = |id, name: &str, range: &str| Grant {
        package: PackageSelector::Named(name.parse().unwrap(), range.parse().unwrap()),
        ..grant(id, one)
    };
    world.grant(&owner, named(1, "a", "*")).unwrap();
    assert!(world.lease(5, one).is_err());
    assert!(world.lease(5, two.unwrap()).is_ok());
    let after: Vec<String> = world.disk.contents().into_keys().collect();
    assert_eq!(before, after);
}

/// "An empty model id skips the ACL check": nothing has an empty name, and no default stands in for one.
#[test]
fn k15_empty_names_and_selectors_allow_nothing() {
    let (world, package) = World::with_package();
    assert!("".parse::<bield_package::PackageName>().is_err());
    assert!("".parse::<bield_grant::GroupName>().is_err());
    assert!("".parse::<PackageSelector>().is_err() && "@*".parse::<PackageSelector>().is_err());
    assert!("".parse::<UserSelector>().is_err() && "group:".parse::<UserSelector>().is_err());
    for kind in [TeeKind::Sgx, TeeKind::Tdx, TeeKind::Snp] {
        assert!(Measurement::new(kind, &[]).is_err());
    }
    let nothing = bield_envelope::Digest::from_bytes([0; 32]);
    assert_eq!(
        world.lease(5, nothing).map(drop),
        Err("unknown-package".into())
    );
    let reference = PackageReference::Named(principal(1), String::new(), None);
    let request = Request::KeyConfiguration(reference, exactly(5));
    assert!(world.say(&mut session(), request).is_err());
    assert_eq!(
        world.lease(5, package).map(drop),
        Err("code-not-granted".into()),
        "no grant, no key"
    );
    let to_nobody = UserSelector::Group("nobody".parse().unwrap());
    world
        .grant(
            &key(1),
            Grant {
                user: to_nobody,
                ..grant(1, package)
            },
        )
        .unwrap();
    let to = world.find(package, exactly(5)).unwrap();
    let sealed = seal(&to.key, to.audience, package, &key(2), world.now());
    let served = Material::new(world.lease(5, package).unwrap()).serve(&sealed, world.now());
    assert_eq!(
        served,
        Err("user-not-granted".into()),
        "a group that is not there has no members"
    );
}

/// "A short model id reads past its end; identity keys of any length are accepted": who owns a thing is a
/// signature by 32 bytes, not how a text begins.
#[test]
fn k16_ownership_is_a_signature_and_keys_have_one_length() {
    let (world, package) = World::with_package();
    let thief = key(3);
    world.order(&thief, Operation::Register).unwrap();
    let stolen = world.put(&thief, "shelter", "1.0.0").unwrap();
    assert_ne!(stolen, package, "the same name is another package");
    assert_eq!(
        world.grant(&thief, grant(1, package)).map(drop),
        Err("not-owner".into())
    );
    for order in [
        Operation::DeletePackage(package),
        Operation::RotateAudience {
            package,
            at_once: true,
        },
    ] {
        assert_eq!(
            world.order(&thief, order).map(drop),
            Err("not-owner".into())
        );
    }
    // Another's header, under the thief's command.
    let mut with = session();
    let command = sign(
        &with,
        &thief,
        cast::offer(&header(&key(1), "loot", "1.0.0"), 9),
    );
    let put = Request::PutPackage(command, Secret::from_bytes([9; 32]));
    assert_eq!(
        world.say(&mut with, put).map(drop),
        Err("invalid-signature".into())
    );
    // Its own header that names another as the owner.
    let says = PackageHeader {
        owner: principal(1),
        ..PackageHeader::clone(&header(&thief, "loot", "1.0.0"))
    };
    let forged = Operation::PutPackage(PackageOffer {
        header: Signed::sign(&thief, says).into_signed(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        key: key_commitment(&Secret::from_bytes([9; 32])),
    });
    let command = sign(&with, &thief, forged);
    let put = Request::PutPackage(command, Secret::from_bytes([9; 32]));
    assert_eq!(world.say(&mut with, put).map(drop), Err("not-owner".into()));
    for length in [0, 16, 31, 33, 64] {
        let text = format!("ed25519:{}", "0a".repeat(length));
        assert!(text.parse::<Principal>().is_err(), "{length} bytes");
    }
}

/// A lease returns once, from the code that has it: what comes twice or from elsewhere is not another quota.
#[test]
fn k11_returns_are_not_taken_twice() {
    let (world, package) = World::with_package();
    let says = Grant {
        requests: Some(4),
        ..grant(1, package)
    };
    let granted = world.grant(&key(1), says).unwrap();
    let leased = world.lease(5, package).unwrap();
    let returned = Returned {
        lease: leased.lease.id,
        unused: leased.allotments.clone(),
    };
    for from in [6, 5, 5, 5] {
        let request = Request::Return(returned.clone());
        assert!(world.say(&mut runtime(from), request).is_ok());
    }
    let all = Listing::Grants {
        package: None,
        user: None,
        after: None,
    };
    let ListingPage::Grants(rows, _) = world.list(&key(1), all).unwrap() else {
        panic!("grants")
    };
    assert_eq!(rows[0].left, Some(4));
    assert_eq!(rows[0].grant.as_bytes(), granted.as_bytes());
}

//! F1 to F7: what one failure does to others.

use super::*;

/// "A model with two or more grants hangs it": any number of grantees, each is served, the first and the last.
#[test]
fn f01_every_grantee_of_many_is_served() {
    let (world, package) = World::with_package();
    for number in 0..200_u8 {
        let says = Grant {
            user: UserSelector::Principal(principal(number)),
            code: exactly(5 + number % 3),
            ..grant(number, package)
        };
        world.grant(&key(1), says).unwrap();
    }
    for runtime in [5, 6, 7] {
        let material = Material::new(world.lease(runtime, package).unwrap());
        let to = world.find(package, exactly(runtime)).unwrap();
        for number in [0, 1, 2, 100, 101, 102, 197, 198, 199] {
            let sealed = seal(&to.key, to.audience, package, &key(number), NOON);
            let granted = 5 + number % 3 == runtime;
            assert_eq!(
                material.serve(&sealed, NOON).is_ok(),
                granted,
                "{number} in {runtime}"
            );
        }
    }
}

/// "A denied user asking twice locks out everyone": a refusal changes nothing for anybody.
#[test]
fn f02_a_refusal_is_not_in_anybodys_way() {
    let (world, package) = World::with_grant();
    let mut denied = runtime(6);
    for _ in 0..50 {
        assert!(world.lease_in(&mut denied, package, None).is_err());
        assert!(world.lease_in(&mut runtime(9), package, None).is_err());
    }
    assert!(world.lease(5, package).is_ok());
    let says = Grant {
        code: exactly(6),
        ..grant(2, package)
    };
    world.grant(&key(1), says).unwrap();
    assert!(
        world.lease_in(&mut denied, package, None).is_ok(),
        "nor in its own, once granted"
    );
}

/// "After one failure the channel is never initialised again": a session goes on after each refusal, and a new one
/// after a restart.
#[test]
fn f03_failures_end_no_session_and_restarts_no_runtime() {
    let (mut world, package) = World::with_grant();
    let mut with = session();
    for _ in 0..3 {
        let refused = sign(&with, &key(1), Operation::DeleteGroup("none".into()));
        assert!(world.say(&mut with, Request::Command(refused)).is_err());
        let garbled = Request::PutPackage(
            sign(&with, &key(1), Operation::Register),
            Secret::from_bytes([0; 32]),
        );
        assert!(world.say(&mut with, garbled).is_err());
        let good = sign(&with, &key(1), Operation::Register);
        assert!(world.say(&mut with, Request::Command(good)).is_ok());
    }
    world.kill();
    world.start().unwrap();
    assert!(world.lease(5, package).is_ok());
}

/// "A failed handler ends the accept loop": of messages that are wrong in every field, none is in the way of the
/// next right one.
#[test]
fn f04_no_message_ends_the_service() {
    let (world, package) = World::with_grant();
    let with = session();
    let whole = Request::Command(sign(&with, &key(1), Operation::Register))
        .encode()
        .to_vec();
    let mut answered = 0;
    for at in 0..whole.len() {
        for change in [0x01, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= change;
            let Ok(request) = Request::decode(&bytes) else {
                continue;
            };
            let mut fresh = Conversation {
                runtime: None,
                binding: with.binding,
                sequence: 0,
            };
            assert!(world.say(&mut fresh, request).is_err(), "byte {at}");
            answered += 1;
        }
    }
    assert!(
        answered > 100,
        "{answered} altered messages reached the service"
    );
    assert_eq!(world.service().ended(), None);
    assert!(world.lease(5, package).is_ok());
}

/// "The server stops on any unparsable byte stream": random bytes are no message, and decoding them costs little.
#[test]
fn f05_bytes_that_are_no_message_are_refused() {
    let mut random = 7_u64;
    let mut next = || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (random >> 33) as usize
    };
    for _ in 0..2000 {
        let bytes: Vec<u8> = (0..next() % 300).map(|_| next() as u8).collect();
        assert!(Request::decode(&bytes).is_err() || bytes.len() < 8);
    }
    // A length that claims 2^63 bytes, and nests without end.
    for bytes in [
        vec![0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        vec![0x81; 100_000],
    ] {
        assert!(Request::decode(&bytes).is_err());
    }
}

/// "Shared buffer and maps without locks: two simultaneous clients can mix requests": each of many at once gets
/// what it asked for, and all of it counts.
#[test]
fn f06_many_at_once_never_mix() {
    const EACH: u8 = 12;
    let world = World::started();
    std::thread::scope(|scope| {
        for number in 1..=8_u8 {
            let world = &world;
            scope.spawn(move || {
                let owner = key(number);
                world.order(&owner, Operation::Register).unwrap();
                for round in 0..EACH {
                    let name = format!("model-{number}");
                    let package = world.put(&owner, &name, &format!("1.{round}.0")).unwrap();
                    let runtime = 100 + number;
                    let says = Grant {
                        code: exactly(runtime),
                        ..grant(round, package)
                    };
                    let granted = world.grant(&owner, says).unwrap();
                    let leased = world.lease(runtime, package).unwrap();
                    assert_eq!(leased.lease.package, package);
                    assert_eq!(leased.lease.owner, owner.principal());
                    assert_eq!(leased.lease.code.measurement, code(runtime));
                    assert_eq!(leased.grants.len(), 1);
                    assert_eq!(leased.grants[0].as_bytes(), granted.as_bytes());
                }
            });
        }
    });
    let counts = world.inspect();
    assert_eq!(
        (counts.principals, counts.packages, counts.grants),
        (8, 96, 96)
    );
    for number in 1..=8 {
        let count = world.audit(&key(number), 0).unwrap().count;
        assert_eq!(count, 1 + 3 * u64::from(EACH));
    }
}

/// "Unsealing a file whose bound name does not match reports success with an uninitialised buffer": every file is
/// bound to its place, and swapped or altered ones are refused with a sentence.
#[test]
fn f07_files_in_each_others_places_are_refused() {
    let (mut world, package) = World::with_grant();
    assert!(world.service().snapshot());
    world.order(&key(7), Operation::Register).unwrap();
    world.kill();
    let whole = world.disk.contents();
    let names: Vec<String> = whole.keys().cloned().collect();
    assert!(names.len() >= 4, "root, two logs, a snapshot: {names:?}");
    let start = |contents| InProcess::start(MemoryFiles::with(contents), &world.options);
    for one in &names {
        for two in names.iter().filter(|two| **two > *one) {
            let mut swapped = whole.clone();
            swapped.insert(one.clone(), whole[two].clone());
            swapped.insert(two.clone(), whole[one].clone());
            let refused = start(swapped).err();
            let refused = refused.unwrap_or_else(|| panic!("{one} and {two} swapped"));
            assert!(refused.len() > 20, "a sentence: {refused}");
        }
    }
    assert!(start(whole).is_ok());
    assert_eq!(world.disk.contents().len(), names.len());
    world.start().unwrap();
    assert!(world.lease(5, package).is_ok());
}

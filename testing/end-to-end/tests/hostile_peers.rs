//! Thousands of peers that say nothing, say it slowly, or say nonsense, and honest ones among them.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bield_end_to_end::{Package, Person, Plan, Site, children, files, tiny_model, wait_until};
use bield_envelope::Signed;
use bield_protocol::service::GrantId;
use bield_sdk::Randomness;
use rand_core::Rng as _;
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

const SOON: Duration = Duration::from_secs(30);
/// Peers of each of four kinds, and those that come from one address.
const OF_A_KIND: usize = 400;
const OF_ONE_ADDRESS: usize = 1200;

/// A connection from an address of this machine: a crowd is not one peer.
fn connect_from(last: u8, to: SocketAddr) -> Option<TcpStream> {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).ok()?;
    let from = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, last), 0);
    bind(&socket, &from).ok()?;
    connect(&socket, &to).ok()?;
    Some(TcpStream::from(socket))
}

/// The first bytes of a real session, as a tap saw them: one TLS record.
fn client_hello(site: &Site) -> Vec<u8> {
    let seen = files(&site.host().join("taps")).unwrap();
    let sent = seen.iter().find(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with("keys-0-") && name.ends_with(".sent")
    });
    let mut bytes = fs::read(sent.unwrap()).unwrap();
    assert_eq!(bytes[0], 0x16, "a handshake record");
    bytes.truncate(5 + usize::from(bytes[3]) * 256 + usize::from(bytes[4]));
    bytes
}

fn publish(owner: &Person, name: &str) -> Package {
    let model = tiny_model(name);
    let package = owner.pack(name, &model).unwrap();
    owner.offer(&package, &model).unwrap();
    package
}

fn ids(owner: &Person) -> BTreeSet<GrantId> {
    let mut service = owner.service().unwrap();
    let listed = service.grants(&owner.key, None, None).unwrap();
    listed.iter().map(|listed| listed.id()).collect()
}

#[test]
fn honest_people_are_served_among_thousands_who_are_silent_slow_or_talk_nonsense() {
    let site = Site::new(Plan::default(), |_| ()).unwrap();
    let instance = site.start("state").unwrap();
    let owner = site.person("owner").unwrap();
    let package = publish(&owner, "crowded");
    let program = children(instance.process.pid(), "bield-keys");
    let hello = client_hello(&site);
    let to = instance.keys;

    // All from one address: no more than its share gets in, and it keeps nobody else out.
    let flood: Vec<_> = (0..OF_ONE_ADDRESS)
        .filter_map(|_| connect_from(9, to))
        .collect();
    assert_eq!(flood.len(), OF_ONE_ADDRESS);
    owner.grant(&package, &owner).unwrap();

    // From many addresses, each of them below its share.
    let (mut crowd, mut slow) = (Vec::new(), Vec::new());
    let mut nonsense = vec![0; 512];
    Randomness.fill_bytes(&mut nonsense);
    for number in 0..OF_A_KIND {
        let from = 10 + u8::try_from(number % 16).unwrap();
        let open = || connect_from(from, to).unwrap();
        crowd.push(open());
        let mut stalled = open();
        let mut talker = open();
        let mut trickle = open();
        // Some of these may be closed while they write: that is theirs to bear.
        let _ = stalled.write_all(&hello);
        let _ = talker.write_all(&nonsense);
        let _ = trickle.write_all(&hello[..hello.len() / 2]);
        crowd.extend([stalled, talker]);
        slow.push(trickle);
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // A byte now and then, so that nobody looks idle.
            let mut next = hello.len() / 2;
            while !stop.load(Ordering::SeqCst) && next < hello.len() - 1 {
                for stream in &mut slow {
                    let _ = stream.write_all(&hello[next..=next]);
                }
                next += 1;
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        // Each of several people at once, each with what is theirs: nobody gets another's.
        let people: Vec<_> = (0..6)
            .map(|number| {
                let site = &site;
                scope.spawn(move || {
                    let name = format!("honest-{number}");
                    let person = site.person(&name).unwrap();
                    let package = publish(&person, &name);
                    let mut granted = BTreeSet::new();
                    for _ in 0..5 {
                        let grant = person.grant(&package, &person).unwrap();
                        granted.insert(GrantId(grant.id));
                    }
                    assert_eq!(ids(&person), granted);
                })
            })
            .collect();
        let outcomes: Vec<_> = people.into_iter().map(|person| person.join()).collect();
        stop.store(true, Ordering::SeqCst);
        assert!(outcomes.iter().all(Result::is_ok));
    });
    // What talks nonsense was answered by an end, never by data.
    for talker in crowd.iter_mut().skip(2).step_by(3).take(50) {
        talker.set_read_timeout(Some(SOON)).unwrap();
        let mut said = Vec::new();
        let _ = talker.read_to_end(&mut said);
        assert!(said.len() < 64, "{said:?}");
    }
    // All of it in one life of the program.
    assert_eq!(children(instance.process.pid(), "bield-keys"), program);
    assert_eq!(instance.state(), "serving");
    drop((flood, crowd, slow));
    // Their places are free again.
    let free = wait_until(SOON, || {
        let (_, status) = instance.get("/v1/status").unwrap();
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        status["key_service"]["sessions"] == 0
    });
    assert!(free, "{:?}", instance.get("/v1/status"));
    instance.stop().unwrap();
}

#[test]
fn an_operator_who_stops_it_under_load_loses_nothing_acknowledged() {
    let site = Site::new(Plan::default(), |_| ()).unwrap();
    let instance = site.start("state").unwrap();
    let owners: Vec<_> = (0..4)
        .map(|number| {
            let name = format!("busy-{number}");
            let owner = site.person(&name).unwrap();
            let package = publish(&owner, &name);
            (owner, package)
        })
        .collect();
    let count = AtomicUsize::new(0);
    let noted: Vec<_> = std::thread::scope(|scope| {
        let load = |(owner, package): &'_ (Person, Package)| {
            let mut noted = BTreeSet::new();
            let mut service = owner.service().unwrap();
            // Until the service goes.
            loop {
                let grant = Signed::sign(&owner.key, owner.draft(package, owner));
                if service.grant(&owner.key, &grant).is_err() {
                    return noted;
                }
                noted.insert(GrantId(grant.id));
                count.fetch_add(1, Ordering::SeqCst);
            }
        };
        let threads: Vec<_> = owners
            .iter()
            .map(|owner| scope.spawn(move || load(owner)))
            .collect();
        assert!(wait_until(SOON, || count.load(Ordering::SeqCst) > 40));
        instance.stop().unwrap();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let _instance = site.start("state").unwrap();
    for ((owner, _), noted) in owners.iter().zip(&noted) {
        let listed = ids(owner);
        let lost: Vec<_> = noted.difference(&listed).collect();
        assert!(
            lost.is_empty(),
            "{} of {} are lost",
            lost.len(),
            noted.len()
        );
    }
}

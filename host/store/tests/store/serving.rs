//! Append, read, heads, subscribe, log.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use bield_capsule::Kept;
use bield_store::frames;

use crate::support::*;

#[test]
fn what_was_appended_is_acknowledged_read_and_named_as_head() {
    let node = Setup::new(1).start();
    let mut capsule = Capsule::new(10, &[]);
    let (writer, records) = capsule.chain(11, 5);
    let name = capsule.name();

    assert_eq!(node.client.create(&capsule).status, 201);
    assert_eq!(node.client.create(&capsule).status, 200);
    let metadata = node.client.get(&format!("/v1/capsules/{name}"));
    assert_eq!(metadata.body, capsule.metadata.as_bytes());

    assert_eq!(node.client.append(&name, &capsule.config).status, 200);
    let answer = node.client.append(&name, &records);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let [said] = &acknowledgements(&answer.body)[..] else {
        panic!("one writer, one acknowledgement");
    };
    assert_eq!(said.signer(), principal(1));
    assert_eq!(said.head(), writer.head().unwrap());
    assert_eq!((said.kept, said.capsule), (Kept::Synced, name));

    assert_eq!(node.client.records(&name, &writer.id()), records);
    assert_eq!(
        node.client.records(&name, &capsule.owner.id()),
        capsule.config
    );
    let part = node.client.get(&format!(
        "/v1/capsules/{name}/records/{}?from=2&to=3",
        writer.id()
    ));
    assert_eq!(unframed(&part.body), records[2..=3]);

    let heads = node.client.heads(&name, [7; 16]);
    assert_eq!((heads.signer(), heads.nonce), (principal(1), [7; 16]));
    assert_eq!(heads.heads, [writer.head().unwrap()]);
    assert_eq!(
        heads.config.unwrap().hash,
        capsule.owner.head().unwrap().hash
    );
}

#[test]
fn records_sent_twice_are_acknowledged_twice_and_stored_once() {
    let node = Setup::new(1).start();
    let mut capsule = Capsule::new(10, &[]);
    let (_, records) = capsule.chain(11, 3);
    node.client.fill(&capsule, &records);
    node.client.fill(&capsule, &records);
    let list = node.client.get("/v1/capsules").json();
    assert_eq!(
        list["capsules"][0]["records"],
        capsule.config.len() + records.len()
    );
}

#[test]
fn an_acknowledgement_says_no_more_than_what_happened() {
    let node = Setup::new(1).start();
    let mut capsule = Capsule::new(10, &[]);
    let (mut writer, records) = capsule.chain(11, 1);
    node.client.fill(&capsule, &records);
    let record = capsule.data(&mut writer, b"not synced");
    let answer = node
        .client
        .append_kept(&capsule.name(), &[record], "memory");
    let said = &acknowledgements(&answer.body)[0];
    assert_eq!(said.kept, Kept::Written, "on the disk's way, not synced");
}

#[test]
fn a_subscriber_sees_what_is_there_and_what_comes_in_the_order_of_arrival() {
    let node = Setup::new(1).start();
    let mut capsule = Capsule::new(10, &[]);
    let (mut writer, records) = capsule.chain(11, 2);
    node.client.fill(&capsule, &records);
    let name = capsule.name();
    let url = format!("{}/v1/capsules/{name}/subscribe?from=1", node.url());
    let response = ureq::get(&url).config().proxy(None).build().call().unwrap();
    let mut stream = response.into_body().into_reader();
    let mut expected: Vec<_> = capsule.config[1..].to_vec();
    expected.extend_from_slice(&records);
    let mut next = || {
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut record = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut record).unwrap();
        record
    };
    for record in &expected {
        assert_eq!(next(), record.as_bytes());
    }
    for n in 0..3 {
        let record = capsule.data(&mut writer, &[n]);
        node.client.append(&name, std::slice::from_ref(&record));
        assert_eq!(next(), record.as_bytes());
    }
    eventually("the subscriber is counted", || {
        node.client
            .get("/metrics")
            .text()
            .contains("bield_store_subscribers 1\n")
    });
}

#[test]
fn a_subscriber_that_reads_nothing_is_cut_off_and_counted() {
    let setup = Setup {
        stall_max: Duration::from_millis(300),
        ..Setup::new(1)
    };
    let node = setup.start();
    let mut capsule = Capsule::new(10, &[]);
    let (mut writer, records) = capsule.chain(11, 0);
    node.client.fill(&capsule, &records);
    // More than the system keeps for a connection.
    for _ in 0..40 {
        let record = capsule.data(&mut writer, &vec![7; 1_000_000]);
        assert_eq!(node.client.append(&capsule.name(), &[record]).status, 200);
    }
    let mut stream = std::net::TcpStream::connect(node.server().address()).unwrap();
    write!(
        stream,
        "GET /v1/capsules/{}/subscribe HTTP/1.1\r\nhost: a\r\n\r\n",
        capsule.name()
    )
    .unwrap();
    let dropped = || {
        node.client
            .get("/metrics")
            .text()
            .contains("bield_store_subscribers_dropped_total 1\n")
    };
    eventually("it is cut off", dropped);
    // What was sent may still be read; then the connection has ended early.
    stream.set_read_timeout(Some(WAIT)).unwrap();
    let mut read = Vec::new();
    let _ = stream.read_to_end(&mut read);
    assert!(
        !read.is_empty() && read.len() < 40_000_000,
        "{}",
        read.len()
    );
    eventually("it is counted no more", || {
        node.client
            .get("/metrics")
            .text()
            .contains("bield_store_subscribers 0\n")
    });
}

#[test]
fn pages_end_at_their_limit_and_say_that_there_is_more() {
    let node = Setup::new(1).start();
    let mut capsule = Capsule::new(10, &[]);
    let (writer, records) = capsule.chain(11, 1100);
    node.client.create(&capsule);
    node.client.append(&capsule.name(), &capsule.config);
    for part in records.chunks(500) {
        assert_eq!(node.client.append(&capsule.name(), part).status, 200);
    }
    let first = node.client.get(&format!(
        "/v1/capsules/{}/records/{}",
        capsule.name(),
        writer.id()
    ));
    assert_eq!(first.headers["bield-more"], "true");
    assert_eq!(frames::items(&first.body).count(), 1024);
    assert_eq!(node.client.records(&capsule.name(), &writer.id()), records);
}

#[test]
fn a_page_of_long_records_ends_after_about_a_mebibyte() {
    let node = Setup::new(1).start();
    let mut capsule = Capsule::new(10, &[]);
    let (mut writer, mut records) = capsule.chain(11, 0);
    for n in 0..8 {
        records.push(capsule.data(&mut writer, &vec![n; 400_000]));
    }
    node.client.fill(&capsule, &records);
    let name = capsule.name();
    let path = format!("/v1/capsules/{name}/records/{}", writer.id());
    let first = node.client.get(&path);
    assert_eq!(first.headers["bield-more"], "true");
    assert!(
        (1 << 20..1_600_000).contains(&first.body.len()),
        "{}",
        first.body.len()
    );
    assert_eq!(node.client.records(&name, &writer.id()), records);
}

#[test]
fn bodies_that_are_announced_and_do_not_come_keep_nobody_from_appending() {
    let node = Setup::new(1).start();
    let mut capsule = Capsule::new(10, &[]);
    let (_, records) = capsule.chain(11, 3);
    node.client.create(&capsule);
    let idle: Vec<_> = (0..64)
        .map(|n| {
            let mut stream = std::net::TcpStream::connect(node.server().address()).unwrap();
            // Half of them name a capsule that is not here.
            let name = match n % 2 {
                0 => capsule.name().to_string(),
                _ => "11".repeat(32),
            };
            write!(
                stream,
                "POST /v1/capsules/{name}/records HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n",
                8 << 20
            )
            .unwrap();
            stream
        })
        .collect();
    std::thread::sleep(Duration::from_millis(200));
    node.client.fill(&capsule, &records);
    // They are told so, and closed, after some seconds.
    for mut stream in idle {
        stream.set_read_timeout(Some(WAIT)).unwrap();
        let mut start = [0; 12];
        stream.read_exact(&mut start).unwrap();
        assert_eq!(&start, b"HTTP/1.1 408");
    }
}

#[test]
fn the_program_tells_what_it_is_and_how_it_is() {
    let node = Setup::new(1).start();
    let identity = node.client.get("/v1/identity").json();
    assert_eq!(identity["principal"], principal(1).to_string());
    assert_eq!(node.client.get("/healthz").status, 200);
    assert_eq!(node.client.get("/readyz").status, 200);
    assert_eq!(
        node.client.get("/v1/nothing").refusal(),
        (404, "no-such-path".into())
    );
    assert_eq!(
        node.client.post("/v1/identity", b"").refusal(),
        (405, "other-method".into())
    );
}

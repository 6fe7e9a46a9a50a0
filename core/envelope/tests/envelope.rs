//! Sealed requests and answers: what opens, what is refused.

use bield_envelope::{
    AudienceKey, Digest, EnvelopeError, RESPONSE_CHUNK_BYTES_MAX, RequestHeader, SealedRequest,
    Seeded, SigningKey, Time, seal_request,
};
use proptest::prelude::*;

struct World {
    entropy: Seeded,
    audience: AudienceKey,
    user: SigningKey,
}

fn world(seed: u64) -> World {
    let mut entropy = Seeded::new(seed);
    let audience = AudienceKey::generate(&mut entropy);
    let user = SigningKey::generate(&mut entropy);
    World {
        entropy,
        audience,
        user,
    }
}

fn header(world: &World) -> RequestHeader {
    RequestHeader {
        audience: Digest::of("test audience", &[]),
        key: world.audience.public().id(),
        package: Digest::of("test package", &[]),
        id: [9; 16],
        created: Time::from_secs(1_795_000_000),
    }
}

#[test]
fn a_request_and_its_answer_travel_sealed() {
    let mut w = world(1);
    let header = header(&w);
    let (sealed, opener) = seal_request(
        w.audience.public(),
        &header,
        &w.user,
        b"what is this?",
        &mut w.entropy,
    )
    .unwrap();
    assert!(!sealed.windows(4).any(|at| at == b"what"));
    let parsed = SealedRequest::parse(&sealed).unwrap();
    let (opened, sealer) = w.audience.open(&parsed).unwrap();
    assert_eq!(opened.body(), b"what is this?");
    assert_eq!(opened.sender(), w.user.principal());
    assert_eq!(opened.header(), &header);
    assert_eq!(opened.digest(), parsed.digest());
    assert_eq!(opened.digest(), opener.request());
    let answer = sealer.seal(b"a shelter", &mut w.entropy);
    assert_eq!(*opener.open(&answer).unwrap(), *b"a shelter");
}

#[test]
fn every_flipped_byte_of_a_request_is_refused() {
    let mut w = world(2);
    let header = header(&w);
    let (sealed, _) = seal_request(
        w.audience.public(),
        &header,
        &w.user,
        b"body",
        &mut w.entropy,
    )
    .unwrap();
    for at in 0..sealed.len() {
        let mut bad = sealed.clone();
        bad[at] ^= 1 << (at % 8);
        let opened = SealedRequest::parse(&bad).and_then(|parsed| w.audience.open(&parsed));
        assert!(opened.is_err(), "byte {at}");
    }
    for length in 0..sealed.len() {
        let opened =
            SealedRequest::parse(&sealed[..length]).and_then(|parsed| w.audience.open(&parsed));
        assert!(opened.is_err(), "cut to {length}");
    }
}

#[test]
fn every_flipped_byte_of_an_answer_is_refused() {
    let mut w = world(3);
    let header = header(&w);
    let request = |w: &mut World| {
        let (sealed, opener) = seal_request(
            w.audience.public(),
            &header,
            &w.user,
            b"body",
            &mut w.entropy,
        )
        .unwrap();
        let (_, sealer) = w
            .audience
            .open(&SealedRequest::parse(&sealed).unwrap())
            .unwrap();
        (sealer.seal(b"short answer", &mut w.entropy), opener)
    };
    let length = request(&mut w).0.len();
    for at in 0..length {
        let (mut answer, opener) = request(&mut w);
        answer[at] ^= 1 << (at % 8);
        assert!(opener.open(&answer).is_err(), "byte {at}");
        let (answer, opener) = request(&mut w);
        assert!(opener.open(&answer[..at]).is_err(), "cut to {at}");
    }
}

#[test]
fn an_answer_to_another_request_is_refused() {
    let mut w = world(4);
    let header = header(&w);
    let seal = |w: &mut World| {
        seal_request(
            w.audience.public(),
            &header,
            &w.user,
            b"same",
            &mut w.entropy,
        )
        .unwrap()
    };
    let ((first, _), (_, opener)) = (seal(&mut w), seal(&mut w));
    let (_, sealer) = w
        .audience
        .open(&SealedRequest::parse(&first).unwrap())
        .unwrap();
    let answer = sealer.seal(b"answer", &mut w.entropy);
    assert_eq!(opener.open(&answer).err(), Some(EnvelopeError::Altered));
}

#[test]
fn a_request_to_another_audience_is_refused_by_name() {
    let mut w = world(5);
    let header = header(&w);
    let (sealed, _) = seal_request(
        w.audience.public(),
        &header,
        &w.user,
        b"body",
        &mut w.entropy,
    )
    .unwrap();
    let other = AudienceKey::generate(&mut w.entropy);
    let refused = other.open(&SealedRequest::parse(&sealed).unwrap()).err();
    assert!(matches!(refused, Some(EnvelopeError::OtherKey { .. })));
}

#[test]
fn what_is_not_sealed_is_named_as_such() {
    let refused = SealedRequest::parse(b"{\"inputs\": []}")
        .err()
        .unwrap()
        .to_string();
    assert!(refused.contains("not a bield sealed request"), "{refused}");
}

#[test]
fn two_answers_to_one_request_share_no_bytes_of_ciphertext() {
    let mut w = world(6);
    let header = header(&w);
    let (sealed, _) = seal_request(
        w.audience.public(),
        &header,
        &w.user,
        b"body",
        &mut w.entropy,
    )
    .unwrap();
    let parsed = SealedRequest::parse(&sealed).unwrap();
    let first = w
        .audience
        .open(&parsed)
        .unwrap()
        .1
        .seal(&[0; 64], &mut w.entropy);
    let second = w
        .audience
        .open(&parsed)
        .unwrap()
        .1
        .seal(&[0; 64], &mut w.entropy);
    assert_ne!(first[41..105], second[41..105]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn answers_of_any_length_arrive_in_any_pieces(
        length in prop_oneof![0..100_usize, RESPONSE_CHUNK_BYTES_MAX - 1..RESPONSE_CHUNK_BYTES_MAX + 2],
        piece in 1..200_000_usize,
    ) {
        let mut w = world(7);
        let header = header(&w);
        let body: Vec<u8> = (0..length).map(|at| at as u8).collect();
        let (sealed, opener) =
            seal_request(w.audience.public(), &header, &w.user, b"", &mut w.entropy).unwrap();
        let (_, sealer) = w.audience.open(&SealedRequest::parse(&sealed).unwrap()).unwrap();
        let answer = sealer.seal(&body, &mut w.entropy);
        let (mut reader, mut plain) = (opener.begin(), Vec::new());
        for piece in answer.chunks(piece.max(answer.len() / 300)) {
            reader.push(piece, &mut plain).unwrap();
        }
        reader.finish().unwrap();
        prop_assert_eq!(plain, body);
    }

    #[test]
    fn any_bytes_end_in_a_typed_refusal(bytes in proptest::collection::vec(any::<u8>(), 0..4000)) {
        let bytes = [b"bldq\x01\x00\x10".as_slice(), &bytes].concat();
        if let Ok(parsed) = SealedRequest::parse(&bytes) {
            prop_assert!(world(8).audience.open(&parsed).is_err());
        }
    }
}

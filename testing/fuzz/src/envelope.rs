//! Sealed requests, sealed responses, chunks.

use std::sync::LazyLock;

use bield_envelope::stream::{StreamKey, TAG_BYTES};
use bield_envelope::{
    AudienceKey, AudiencePublicKey, ResponseOpener, SealedRequest, Secret, Seeded, seal_request,
    wire,
};

use crate::{cast, vectors};

/// A runtime reads a request: what opens is a request that was sealed.
pub fn sealed_request(data: &[u8]) -> bool {
    let Ok(parsed) = SealedRequest::parse(data) else {
        return false;
    };
    let header = wire::encode(parsed.header());
    assert!(
        data[7..].starts_with(&header),
        "the header has other bytes than it was read from"
    );
    let mut accepted = false;
    for key in &KEYS.audiences {
        let opened = key.open(&parsed);
        if let Ok((request, _)) = opened {
            cast::assert_honest(data, &KEYS.requests, "sealed request");
            assert_eq!(request.digest(), parsed.digest());
            assert_eq!(request.header(), parsed.header());
            accepted = true;
        }
    }
    accepted
}

/// A client reads the answer to its request: in one piece or in many, it opens to what was sealed.
pub fn sealed_response(data: &[u8]) -> bool {
    let whole = opener().open(data);

    // In three pieces: the same verdict, and never a byte released that was not sealed.
    let mut plain = Vec::new();
    let mut reader = opener().begin();
    let third = data.len() / 3;
    let pieces = [&data[..third], &data[third..2 * third], &data[2 * third..]];
    let pushed = pieces
        .into_iter()
        .try_for_each(|piece| reader.push(piece, &mut plain));
    let finished = pushed.is_ok() && reader.finish().is_ok();
    assert_eq!(finished, whole.is_ok(), "pieces changed the verdict");
    assert!(
        RESPONSES.iter().any(|(_, body)| body.starts_with(&plain)),
        "plaintext released that nobody sealed"
    );

    let Ok(body) = whole else {
        return false;
    };
    let honest = RESPONSES.iter().find(|(sealed, _)| sealed == data);
    let (_, sealed_body) = honest.expect("a response opened that nobody sealed");
    assert_eq!(&*body, sealed_body);
    assert_eq!(plain, *body);
    true
}

/// A chunk opens only as what it was sealed from, and leaves zeros otherwise.
///
/// Input: index (4), last (1), then the sealed chunk.
pub fn stream_chunk(data: &[u8]) -> bool {
    let Some((head, sealed)) = data.split_first_chunk::<5>() else {
        return false;
    };
    let index = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
    let mut plain = vec![0xaa; sealed.len().saturating_sub(TAG_BYTES)];
    let key = StreamKey::new(&cast::secret(0x11), [0; 7]);
    let opened = key.open_into(index, head[4] != 0, b"aad", sealed, &mut plain);
    if opened.is_err() {
        assert!(plain.iter().all(|byte| *byte == 0), "plaintext remained");
        return false;
    }
    let mut again = Vec::new();
    key.seal(index, head[4] != 0, b"aad", &plain, &mut again);
    assert_eq!(again, sealed);
    cast::assert_honest(
        &[&head[..4], &[u8::from(head[4] != 0)], sealed].concat(),
        &seeds::stream_chunk(),
        "chunk",
    );
    true
}

/// Keys that hold what the seeds were sealed to.
struct Keys {
    audiences: Vec<AudienceKey>,
    requests: Vec<Vec<u8>>,
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let own = AudienceKey::from_seed(cast::secret(0x22));
    let mut requests: Vec<_> = [&b""[..], b"what is this?", &[7; 3000]]
        .into_iter()
        .zip(40..)
        .map(|(body, seed)| sealed(own.public(), body, seed).0)
        .collect();
    let mut audiences = vec![own];
    let frozen = (
        vectors::bytes("01-envelope", "/request/audience_private_key"),
        vectors::bytes("01-envelope", "/request/sealed"),
    );
    if let (Some(key), Some(request)) = frozen
        && let Ok(key) = <[u8; 32]>::try_from(key)
    {
        audiences.push(AudienceKey::from_seed(Secret::from_bytes(key)));
        requests.push(request);
    }
    Keys {
        audiences,
        requests,
    }
});

/// Sealed answers to one request, and what is in them.
static RESPONSES: LazyLock<Vec<(Vec<u8>, Vec<u8>)>> = LazyLock::new(|| {
    let key = AudienceKey::from_seed(cast::secret(0x33));
    let request = sealed(key.public(), b"?", RESPONSE_SEED).0;
    let open = || {
        let parsed = SealedRequest::parse(&request).expect("just sealed");
        key.open(&parsed).expect("just sealed").1
    };
    let mut answers: Vec<_> = [&b""[..], b"a shelter", &[3; 2000]]
        .into_iter()
        .zip(60..)
        .map(|(body, seed)| (open().seal(body, &mut Seeded::new(seed)), body.to_vec()))
        .collect();
    // Several chunks, so that there is something to reorder.
    let mut chunked = Vec::new();
    let mut writer = open().begin(&mut Seeded::new(69), &mut chunked);
    writer.chunk(b"one, ", &mut chunked);
    writer.chunk(b"two, ", &mut chunked);
    writer.finish(b"three", &mut chunked);
    answers.push((chunked, b"one, two, three".to_vec()));
    answers
});

/// The opener of the one request whose answers are seeds; each answer consumes one.
fn opener() -> ResponseOpener {
    static TO: LazyLock<AudiencePublicKey> =
        LazyLock::new(|| AudienceKey::from_seed(cast::secret(0x33)).public().clone());
    sealed(&TO, b"?", RESPONSE_SEED).1
}

fn sealed(to: &AudiencePublicKey, body: &[u8], seed: u64) -> (Vec<u8>, ResponseOpener) {
    let header = cast::header(to.id());
    seal_request(to, &header, &cast::user(), body, &mut Seeded::new(seed))
        .expect("header and key agree")
}

const RESPONSE_SEED: u64 = 50;

pub(crate) mod seeds {
    use super::*;

    pub(crate) fn sealed_request() -> Vec<Vec<u8>> {
        KEYS.requests.clone()
    }

    pub(crate) fn sealed_response() -> Vec<Vec<u8>> {
        RESPONSES.iter().map(|(sealed, _)| sealed.clone()).collect()
    }

    pub(crate) fn stream_chunk() -> Vec<Vec<u8>> {
        let key = StreamKey::new(&cast::secret(0x11), [0; 7]);
        let chunk = |index: u32, last, plain: &[u8]| {
            let mut out = [&index.to_be_bytes()[..], &[u8::from(last)]].concat();
            key.seal(index, last, b"aad", plain, &mut out);
            out
        };
        vec![
            chunk(0, false, b"first"),
            chunk(1, true, b"last"),
            chunk(u32::MAX, false, b""),
        ]
    }
}

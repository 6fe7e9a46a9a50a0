//! An answer that is handed over while it is made: the plaintext inside the sealed request and response.
//!
//! ```text
//! request   1 ‖ inference::Request                    (without the 1, the answer comes whole)
//! reply     1 ‖ item ‖ item ‖ …                       item = u32 length ‖ CBOR, sealed in chunks of its own
//!           outputs in the order asked for, then End, or Refused at any place
//! ```
//!
//! Always true: the wish is inside what is sealed, so a host can neither make nor unmake it; an answer that was cut off has
//! no [`Item::End`], and one that has it is complete; the receipt in it commits to the same bytes as that of a whole
//! answer, [`Output`](crate::inference::Output) of all outputs. An [`Item::Output`] alone proves that who opened the
//! request sealed this as the next output, and nothing of code, grant or receipt. Layout: spec/10 §4.

use bield_envelope::{Signed, Wiped, wire};
use bield_package::tensor::Tensor;
use bield_receipt::{Receipt, WorkerCertificate};
use minicbor::{Decode, Encode};

use crate::inference::{BODY_BYTES_MAX, Request, TENSORS_MAX};
use crate::refusal::Refusal;

/// One piece of an answer in parts.
#[derive(Debug, Clone, Encode, Decode)]
#[non_exhaustive]
#[expect(
    clippy::large_enum_variant,
    reason = "one at a time, on its way to the wire"
)]
pub enum Item {
    /// The next output.
    #[n(0)]
    Output(#[n(0)] Tensor),
    /// There are no more, and what proves where they came from.
    #[n(1)]
    End(#[n(0)] End),
    /// The runtime says no after all; what came before is not an answer.
    #[n(2)]
    Refused(#[n(0)] Refusal),
}

/// What [`Answer`](crate::inference::Answer) has beside the outputs.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub struct End {
    /// As in an answer.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub salt: [u8; 32],
    /// Signed by the runtime; commits to all outputs.
    #[n(1)]
    pub receipt: Signed<Receipt>,
    /// Signed by the key service: whose key the runtime's is.
    #[n(2)]
    pub certificate: Signed<WorkerCertificate>,
}

impl Item {
    /// Encodes it with its length before it; the `first` of an answer also with the byte that says what follows.
    ///
    /// # Panics
    /// When it is longer than 4 GiB; no output is.
    #[must_use]
    pub fn encode(&self, first: bool) -> Wiped {
        let item = wire::encode_wiped(self);
        let length = u32::try_from(item.len()).expect("an output is shorter");
        let mut bytes = Wiped::with_capacity(PREFIX_BYTES + item.len());
        if first {
            bytes.extend_from_slice(&[IN_PARTS]);
        }
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&item);
        bytes
    }
}

/// Encodes a request whose answer is to come in parts.
#[must_use]
pub fn encode_request(request: &Request) -> Wiped {
    let request = request.encode();
    let mut bytes = Wiped::with_capacity(1 + request.len());
    bytes.extend_from_slice(&[IN_PARTS]);
    bytes.extend_from_slice(&request);
    bytes
}

/// Decodes a request's body; whether its answer is to come in parts.
///
/// # Errors
/// Malformed or too long.
pub fn decode_request(bytes: &[u8]) -> Result<(Request, bool), wire::WireError> {
    match bytes.split_first() {
        Some((&IN_PARTS, rest)) => Ok((Request::decode(rest)?, true)),
        _ => Ok((Request::decode(bytes)?, false)),
    }
}

/// An answer that is arriving, in parts or, because the runtime refuses it or pads it, whole.
#[derive(Default)]
pub struct Arriving {
    plain: Wiped,
    /// Where in it the next item begins.
    at: usize,
    in_parts: Option<bool>,
    bytes: usize,
    outputs: usize,
    is_ended: bool,
}

impl Arriving {
    /// Takes plaintext that was opened.
    ///
    /// # Errors
    /// The answer is longer than any may be.
    pub fn push(&mut self, plain: &[u8]) -> Result<(), wire::WireError> {
        self.bytes = self.bytes.saturating_add(plain.len());
        if self.bytes > BODY_BYTES_MAX {
            return Err(malformed());
        }
        if self.in_parts.is_none() && !plain.is_empty() {
            let in_parts = plain[0] == IN_PARTS;
            self.in_parts = Some(in_parts);
            self.at = usize::from(in_parts);
        } else if self.in_parts == Some(true) && self.at > 0 {
            self.plain.drop_first(self.at);
            self.at = 0;
        }
        self.plain.extend_from_slice(plain);
        Ok(())
    }

    /// The next item, when all of it is there; never one of an answer that comes whole.
    ///
    /// # Errors
    /// Malformed, or something after the end.
    pub fn next_item(&mut self) -> Result<Option<Item>, wire::WireError> {
        if self.in_parts != Some(true) {
            return Ok(None);
        }
        let rest = &self.plain[self.at..];
        if self.is_ended {
            return match rest {
                [] => Ok(None),
                _ => Err(malformed()),
            };
        }
        let Some((length, rest)) = rest.split_first_chunk() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if length > BODY_BYTES_MAX {
            return Err(malformed());
        }
        let Some(item) = rest.get(..length) else {
            return Ok(None);
        };
        let item = wire::decode(item, BODY_BYTES_MAX)?;
        self.at += LENGTH_BYTES + length;
        match item {
            Item::Output(_) if self.outputs == TENSORS_MAX => return Err(malformed()),
            Item::Output(_) => self.outputs += 1,
            Item::End(_) | Item::Refused(_) => self.is_ended = true,
        }
        Ok(Some(item))
    }

    /// The plaintext of an answer that came whole; `None` when it came in parts.
    #[must_use]
    pub fn into_whole(self) -> Option<Wiped> {
        (self.in_parts != Some(true)).then_some(self.plain)
    }
}

const fn malformed() -> wire::WireError {
    wire::WireError::Malformed {
        what: "answer in parts",
    }
}

/// First byte of what comes, or is to come, in parts. A whole request begins with a map, a whole reply with an array or
/// with 0.
const IN_PARTS: u8 = 1;
const LENGTH_BYTES: usize = 4;
const PREFIX_BYTES: usize = 1 + LENGTH_BYTES;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::Retry;

    fn output(name: &str) -> Item {
        Item::Output(Tensor::from_f32(name, &[2], &[1.0, 2.0]).unwrap())
    }

    fn refused() -> Item {
        Item::Refused(Refusal::new("test", "no", Retry::Never))
    }

    fn stream(items: &[Item]) -> Vec<u8> {
        let encoded = items.iter().enumerate();
        encoded
            .flat_map(|(index, item)| item.encode(index == 0).to_vec())
            .collect()
    }

    fn names(arriving: &mut Arriving) -> Result<Vec<String>, wire::WireError> {
        let mut names = Vec::new();
        while let Some(item) = arriving.next_item()? {
            names.push(match item {
                Item::Output(tensor) => tensor.name().to_owned(),
                Item::End(_) => "end".to_owned(),
                Item::Refused(_) => "refused".to_owned(),
            });
        }
        Ok(names)
    }

    #[test]
    fn items_come_out_as_soon_as_they_are_whole_however_they_are_cut() {
        let bytes = stream(&[output("a"), output("b"), refused()]);
        for size in [1, 2, 7, bytes.len()] {
            let mut arriving = Arriving::default();
            let mut heard = Vec::new();
            for piece in bytes.chunks(size) {
                arriving.push(piece).unwrap();
                heard.extend(names(&mut arriving).unwrap());
            }
            assert_eq!(heard, ["a", "b", "refused"]);
            assert!(arriving.into_whole().is_none());
        }
        let mut arriving = Arriving::default();
        arriving.push(&stream(&[output("a")])).unwrap();
        assert_eq!(names(&mut arriving).unwrap(), ["a"], "before the next");
    }

    #[test]
    fn nothing_follows_an_end_and_nothing_else_is_an_item() {
        for bytes in [
            stream(&[refused(), output("a")]),
            [&stream(&[refused()])[..], &[0]].concat(),
            [&[IN_PARTS][..], &u32::MAX.to_be_bytes()].concat(),
            [&[IN_PARTS][..], &1u32.to_be_bytes(), &[0]].concat(),
            stream(&vec![output("a"); TENSORS_MAX + 1]),
        ] {
            let mut arriving = Arriving::default();
            arriving.push(&bytes).unwrap();
            assert!(names(&mut arriving).is_err());
        }
    }

    #[test]
    fn a_whole_reply_is_told_apart_and_the_wish_for_parts_too() {
        let reply = crate::inference::Reply::Refused(Refusal::new("test", "no", Retry::Never));
        for whole in [reply.encode(), reply.encode_padded()] {
            let mut arriving = Arriving::default();
            arriving.push(&whole).unwrap();
            assert!(arriving.next_item().unwrap().is_none());
            assert_eq!(arriving.into_whole().unwrap()[..], whole[..]);
        }
        let request = Request {
            inputs: Vec::new(),
            outputs: vec!["probs".into()],
        };
        let decoded = decode_request(&request.encode()).unwrap();
        assert_eq!(decoded, (request.clone(), false));
        let decoded = decode_request(&encode_request(&request)).unwrap();
        assert_eq!(decoded, (request, true));
        assert!(decode_request(&[IN_PARTS, IN_PARTS]).is_err());
    }
}

//! A codec that looks at a message before anything is allocated for it.
//!
//! Always true of what reaches prost: at most [`FIELDS_MAX`] fields at the top and as many in the messages
//! right below, and at most [`TYPED_BYTES_MAX`] bytes outside of raw contents. Hence what is made of a message takes at
//! most about 16 times those bytes (a byte of a packed field becomes a number of 8; vectors grow by doubling), and
//! raw contents are not copied at all.

use prost::Message;
use prost::bytes::Buf as _;
use prost::encoding::{WireType, decode_key, decode_varint};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

/// Bytes of a message that are not raw contents.
const TYPED_BYTES_MAX: usize = 8 << 20;
/// Fields of a message, and of those right below it together.
const FIELDS_MAX: usize = 4096;
/// The field of a call's raw contents.
const RAW_CONTENTS: u32 = 7;

/// prost's codec behind [`looked_at`].
pub(crate) struct BoundedCodec<T, U>(ProstCodec<T, U>);

impl<T, U> Default for BoundedCodec<T, U> {
    fn default() -> Self {
        Self(ProstCodec::new())
    }
}

impl<T, U> Codec for BoundedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        self.0.encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder(self.0.decoder())
    }
}

/// See [`BoundedCodec`].
pub(crate) struct BoundedDecoder<U>(ProstDecoder<U>);

impl<U: Message + Default> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let whole = message.chunk();
        if whole.len() != message.remaining() {
            return Err(Status::internal(
                "a message came in pieces; please report it",
            ));
        }
        looked_at(whole)?;
        self.0.decode(message)
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}

/// Refuses a message that would take more memory than it may.
fn looked_at(message: &[u8]) -> Result<(), Status> {
    let (mut typed, mut below) = (message.len(), 0);
    fields(message, &mut 0, |number, inner| {
        if number == RAW_CONTENTS {
            typed -= inner.len();
            return Ok(());
        }
        // What is text and no message ends the count early; it makes nothing to count either.
        match fields(inner, &mut below, |_, _| Ok(())) {
            Err(Stop::Malformed) => Ok(()),
            counted => counted,
        }
    })
    .map_err(|stop| match stop {
        Stop::TooMany => Status::resource_exhausted("the message has too many fields"),
        Stop::Malformed => Status::invalid_argument("the message is not protobuf"),
    })?;
    if typed > TYPED_BYTES_MAX {
        return Err(Status::resource_exhausted(format!(
            "a message has at most {TYPED_BYTES_MAX} bytes outside of raw_input_contents: send elements raw"
        )));
    }
    Ok(())
}

enum Stop {
    TooMany,
    Malformed,
}

/// Counts the fields of `message` on from `count`; hands each that has a length to `each`.
fn fields(
    mut message: &[u8],
    count: &mut usize,
    mut each: impl FnMut(u32, &[u8]) -> Result<(), Stop>,
) -> Result<(), Stop> {
    while !message.is_empty() {
        *count += 1;
        if *count > FIELDS_MAX {
            return Err(Stop::TooMany);
        }
        let (number, wire) = decode_key(&mut message).map_err(|_| Stop::Malformed)?;
        let length = match wire {
            WireType::Varint => {
                decode_varint(&mut message).map_err(|_| Stop::Malformed)?;
                continue;
            }
            WireType::SixtyFourBit => 8,
            WireType::ThirtyTwoBit => 4,
            WireType::LengthDelimited => {
                let length = decode_varint(&mut message).map_err(|_| Stop::Malformed)?;
                usize::try_from(length).map_err(|_| Stop::Malformed)?
            }
            // Groups are of no message here, and nest.
            WireType::StartGroup | WireType::EndGroup => return Err(Stop::Malformed),
        };
        let (inner, rest) = message.split_at_checked(length).ok_or(Stop::Malformed)?;
        message = rest;
        if wire == WireType::LengthDelimited {
            each(number, inner)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oip::grpc::proto::ModelInferRequest;
    use crate::oip::grpc::proto::model_infer_request::InferInputTensor;

    fn code(message: &[u8]) -> Option<tonic::Code> {
        looked_at(message).err().map(|status| status.code())
    }

    #[test]
    fn few_bytes_that_would_become_many_are_refused_before_they_do() {
        // Two bytes each that would become some hundred.
        let empty_inputs = [0x2a, 0].repeat(FIELDS_MAX + 1);
        assert_eq!(code(&empty_inputs), Some(tonic::Code::ResourceExhausted));
        let parameters = [0x22, 0].repeat(FIELDS_MAX + 1);
        let mut input = vec![0x2a];
        prost::encoding::encode_varint(parameters.len() as u64, &mut input);
        input.extend(&parameters);
        assert_eq!(code(&input), Some(tonic::Code::ResourceExhausted));
        assert_eq!(code(&[0x2a, 9, 0]), Some(tonic::Code::InvalidArgument));
        assert_eq!(code(&[0x2b; 64]), Some(tonic::Code::InvalidArgument));
    }

    #[test]
    fn raw_contents_may_be_large_and_the_rest_may_not() {
        let mut request = ModelInferRequest {
            model_name: "echo".to_owned(),
            inputs: vec![InferInputTensor::default(); 64],
            raw_input_contents: vec![vec![0; TYPED_BYTES_MAX + 1].into()],
            ..Default::default()
        };
        assert_eq!(code(&request.encode_to_vec()), None);
        request.model_name = "e".repeat(TYPED_BYTES_MAX + 1);
        let refused = code(&request.encode_to_vec());
        assert_eq!(refused, Some(tonic::Code::ResourceExhausted));
    }
}

//! Tensors in the messages of a call: raw, or in the field of their datatype.
//!
//! Always true: elements arrive either raw for all inputs or typed; typed ones stand in the field of their datatype
//! and no other, and a number that its datatype cannot hold is an error. Answers are raw.

use bield_protocol::inference::TENSORS_MAX;
use bield_sdk::{ElementType, Tensor};

use super::proto::model_infer_request::InferInputTensor;
use super::proto::model_infer_response::InferOutputTensor;
use super::proto::{
    InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse, infer_parameter,
};
use crate::oip::elements;
use crate::refused::Refused;
use crate::upstream::Done;

/// The inputs, and the names of the outputs that are wanted.
pub(super) fn read(request: ModelInferRequest) -> Result<(Vec<Tensor>, Vec<String>), Refused> {
    if request.inputs.len() > TENSORS_MAX || request.outputs.len() > TENSORS_MAX {
        return Err(Refused::bad(format_args!(
            "more than {TENSORS_MAX} tensors"
        )));
    }
    let raw = request.raw_input_contents;
    if !raw.is_empty() && raw.len() != request.inputs.len() {
        return Err(Refused::bad(
            "raw_input_contents has another number of entries than there are inputs",
        ));
    }
    let mut raw = raw.into_iter();
    let mut inputs = Vec::with_capacity(request.inputs.len());
    for input in request.inputs {
        inputs.push(tensor(input, raw.next().map(Vec::from))?);
    }
    let mut outputs = Vec::with_capacity(request.outputs.len());
    for output in request.outputs {
        if output.parameters.contains_key("shared_memory_region")
            || output.parameters.contains_key("classification")
        {
            return Err(Refused::bad(
                "shared memory and classification are not supported here",
            ));
        }
        if outputs.contains(&output.name) {
            return Err(Refused::bad("an output is asked for twice"));
        }
        outputs.push(output.name);
    }
    Ok((inputs, outputs))
}

fn tensor(input: InferInputTensor, raw: Option<Vec<u8>>) -> Result<Tensor, Refused> {
    if input.parameters.contains_key("shared_memory_region") {
        return Err(Refused::bad("shared memory is not supported here"));
    }
    let element = elements::element(&input.datatype).ok_or_else(|| {
        Refused::bad(
            "an input's datatype is none of BOOL, UINT8 to UINT64, INT8 to INT64, FP16, FP32, FP64, BYTES",
        )
    })?;
    let shape: Result<Vec<u64>, _> = input.shape.into_iter().map(u64::try_from).collect();
    let shape = shape.map_err(|_| Refused::bad("a dimension of an input is negative"))?;
    let data = match (raw, input.contents) {
        (Some(raw), None) => raw,
        (None, contents) => typed(element, &contents.unwrap_or_default())?,
        _ => {
            return Err(Refused::bad(
                "an input has both raw_input_contents and contents; the protocol allows one of them",
            ));
        }
    };
    Tensor::new(input.name, element, shape, data).map_err(Refused::bad)
}

/// The bytes of typed contents, which stand in the field of their datatype and no other.
fn typed(element: ElementType, contents: &InferTensorContents) -> Result<Vec<u8>, Refused> {
    let InferTensorContents {
        bool_contents: bools,
        int_contents: ints,
        int64_contents: longs,
        uint_contents: naturals,
        uint64_contents: long_naturals,
        fp32_contents: singles,
        fp64_contents: doubles,
        bytes_contents: texts,
    } = contents;
    let counts = [
        bools.len(),
        ints.len(),
        longs.len(),
        naturals.len(),
        long_naturals.len(),
        singles.len(),
        doubles.len(),
        texts.len(),
    ];
    let given: usize = counts.iter().sum();
    let narrow = || Refused::bad("a value is not one that the input's datatype can hold");
    macro_rules! narrowed {
        ($values:expr, $type:ty) => {{
            let mut bytes = Vec::with_capacity($values.len() * size_of::<$type>());
            for value in $values {
                bytes.extend(
                    <$type>::try_from(*value)
                        .map_err(|_| narrow())?
                        .to_le_bytes(),
                );
            }
            ($values.len(), bytes)
        }};
    }
    macro_rules! as_is {
        ($values:expr) => {
            (
                $values.len(),
                $values
                    .iter()
                    .flat_map(|value| value.to_le_bytes())
                    .collect(),
            )
        };
    }
    let (taken, bytes): (usize, Vec<u8>) = match element {
        ElementType::Bool => (bools.len(), bools.iter().map(|b| u8::from(*b)).collect()),
        ElementType::I8 => narrowed!(ints, i8),
        ElementType::I16 => narrowed!(ints, i16),
        ElementType::I32 => as_is!(ints),
        ElementType::I64 => as_is!(longs),
        ElementType::U8 => narrowed!(naturals, u8),
        ElementType::U16 => narrowed!(naturals, u16),
        ElementType::U32 => as_is!(naturals),
        ElementType::U64 => as_is!(long_naturals),
        ElementType::F32 => as_is!(singles),
        ElementType::F64 => as_is!(doubles),
        ElementType::F16 => {
            return Err(Refused::bad(
                "FP16 has no typed contents; use raw_input_contents",
            ));
        }
        ElementType::String => {
            let mut bytes = Vec::new();
            for text in texts {
                bytes.extend(
                    u32::try_from(text.len())
                        .map_err(|_| narrow())?
                        .to_le_bytes(),
                );
                bytes.extend_from_slice(text);
            }
            (texts.len(), bytes)
        }
    };
    if taken != given {
        return Err(Refused::bad(
            "an input's contents stand in a field of another datatype",
        ));
    }
    Ok(bytes)
}

/// An answer to the call `id`.
pub(super) fn write(done: Done, id: String) -> ModelInferResponse {
    let receipt = InferParameter {
        parameter_choice: Some(infer_parameter::ParameterChoice::StringParam(
            done.receipt.to_string(),
        )),
    };
    let length = |n: &u64| i64::try_from(*n).unwrap_or(i64::MAX);
    let output = |tensor: &Tensor| InferOutputTensor {
        name: tensor.name().to_owned(),
        datatype: elements::datatype(tensor.element()).to_owned(),
        shape: tensor.shape().iter().map(length).collect(),
        ..InferOutputTensor::default()
    };
    ModelInferResponse {
        model_name: done.model,
        model_version: done.version,
        id,
        parameters: [("bield_receipt".to_owned(), receipt)].into(),
        outputs: done.tensors.iter().map(output).collect(),
        raw_output_contents: done
            .tensors
            .into_iter()
            .map(|tensor| tensor.into_data().into())
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A call of one input of two elements.
    fn asked(
        datatype: &str,
        contents: Option<InferTensorContents>,
        raw: &[&[u8]],
    ) -> ModelInferRequest {
        let input = InferInputTensor {
            name: "x".to_owned(),
            datatype: datatype.to_owned(),
            shape: vec![2],
            contents,
            ..InferInputTensor::default()
        };
        ModelInferRequest {
            inputs: vec![input],
            raw_input_contents: raw.iter().map(|raw| raw.to_vec().into()).collect(),
            ..ModelInferRequest::default()
        }
    }

    fn bytes(request: ModelInferRequest) -> Result<Vec<u8>, String> {
        let (mut inputs, _) = read(request).map_err(|refused| refused.message)?;
        Ok(inputs.remove(0).into_data())
    }

    /// Every field filled as its type is.
    fn contents(fill: impl FnOnce(&mut InferTensorContents)) -> Option<InferTensorContents> {
        let mut contents = InferTensorContents::default();
        fill(&mut contents);
        Some(contents)
    }

    #[test]
    fn typed_contents_become_the_bytes_that_raw_ones_are() {
        let text = [&2u32.to_le_bytes()[..], b"ab", &0u32.to_le_bytes()[..]].concat();
        let ints = || contents(|c| c.int_contents = vec![-1, 7]);
        let naturals = || contents(|c| c.uint_contents = vec![1, 200]);
        for (datatype, typed, raw) in [
            (
                "BOOL",
                contents(|c| c.bool_contents = vec![true, false]),
                vec![1, 0],
            ),
            ("INT8", ints(), vec![255, 7]),
            ("INT16", ints(), vec![255, 255, 7, 0]),
            ("INT32", ints(), vec![255, 255, 255, 255, 7, 0, 0, 0]),
            (
                "INT64",
                contents(|c| c.int64_contents = vec![0, 1]),
                [0i64.to_le_bytes(), 1i64.to_le_bytes()].concat(),
            ),
            ("UINT8", naturals(), vec![1, 200]),
            ("UINT16", naturals(), vec![1, 0, 200, 0]),
            ("UINT32", naturals(), vec![1, 0, 0, 0, 200, 0, 0, 0]),
            (
                "UINT64",
                contents(|c| c.uint64_contents = vec![0, 1]),
                [0u64.to_le_bytes(), 1u64.to_le_bytes()].concat(),
            ),
            (
                "FP32",
                contents(|c| c.fp32_contents = vec![0.5, -1.0]),
                [0.5f32.to_le_bytes(), (-1f32).to_le_bytes()].concat(),
            ),
            (
                "FP64",
                contents(|c| c.fp64_contents = vec![0.5, -1.0]),
                [0.5f64.to_le_bytes(), (-1f64).to_le_bytes()].concat(),
            ),
            (
                "BYTES",
                contents(|c| c.bytes_contents = vec![b"ab".to_vec(), Vec::new()]),
                text,
            ),
        ] {
            assert_eq!(
                bytes(asked(datatype, typed, &[])),
                Ok(raw.clone()),
                "{datatype}"
            );
            assert_eq!(bytes(asked(datatype, None, &[&raw])), Ok(raw), "{datatype}");
        }
        assert_eq!(
            bytes(asked("FP16", None, &[&[0, 60, 0, 60]])),
            Ok(vec![0, 60, 0, 60])
        );
    }

    #[test]
    fn contents_that_contradict_are_refused() {
        let ints = || contents(|c| c.int_contents = vec![1, 300]);
        let both = contents(|c| {
            c.int_contents = vec![1, 2];
            c.fp32_contents = vec![0.5];
        });
        for (request, why) in [
            (asked("INT8", ints(), &[]), "can hold"),
            (asked("FP32", ints(), &[]), "another datatype"),
            (asked("INT32", both, &[]), "another datatype"),
            (asked("INT32", ints(), &[&[0; 8]]), "both"),
            (asked("INT32", None, &[&[0; 8], &[0; 8]]), "another number"),
            (asked("INT32", None, &[]), "0 bytes"),
            (asked("FP16", ints(), &[]), "raw_input_contents"),
            (asked("BF16", None, &[&[0; 4]]), "datatype"),
        ] {
            let error = bytes(request).unwrap_err();
            assert!(error.contains(why), "{why}: {error}");
        }
        let mut negative = asked("INT32", None, &[&[0; 8]]);
        negative.inputs[0].shape = vec![-1];
        assert!(bytes(negative).unwrap_err().contains("negative"));
    }
}

//! From sentences to a model's inputs, and from its outputs to embeddings.
//!
//! ```text
//! sentences ─tokenizer.json─▶ ids ─padded─▶ input_ids, attention_mask, token_type_ids ─▶ model
//! [batch, tokens, dim] ─mean over the mask │ first token─▶ [batch, dim] ─÷ length─▶ embeddings
//! ```
//!
//! Always true: text becomes tokens here, on the user's machine, by the user's own file; which of the three
//! inputs are made, their types and fixed lengths follow the model's attested specification; padding has mask
//! 0 and counts in no mean. The file's truncation is obeyed, its padding is not.
//!
//! Sources: mean pooling and length 1 as sentence-transformers does for all-MiniLM-L6-v2.

use std::str::FromStr;

use bield_sdk::{ElementType, Tensor, TensorSpec};
use tokenizers::Tokenizer;

use crate::refused::Refused;
use crate::upstream::About;

/// How a model's text becomes tokens.
pub struct Text {
    tokenizer: Tokenizer,
}

/// How one vector is made of a vector for each token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pooling {
    /// Their mean over the attention mask, brought to length 1.
    #[default]
    Mean,
    /// The first token's, brought to length 1.
    Cls,
    /// None: the model gives one vector for each text, which is passed on as it is.
    None,
}

impl FromStr for Pooling {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "mean" => Ok(Self::Mean),
            "cls" => Ok(Self::Cls),
            "none" => Ok(Self::None),
            _ => Err("a pooling is mean, cls or none".to_owned()),
        }
    }
}

impl Text {
    /// Reads a tokenizer.json.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(json: &[u8]) -> Result<Self, String> {
        let mut tokenizer = Tokenizer::from_bytes(json).map_err(|error| error.to_string())?;
        tokenizer.with_padding(None);
        Ok(Self { tokenizer })
    }

    /// The tokens of one text, with those that mark its ends.
    ///
    /// # Errors
    /// The tokenizer cannot.
    pub(crate) fn tokens(&self, text: &str) -> Result<Vec<u32>, Refused> {
        let tokens = self
            .tokenizer
            .encode_fast(text, true)
            .map_err(|_| Refused::bad("the model's tokenizer cannot read an input"))?;
        Ok(tokens.get_ids().to_vec())
    }
}

/// What an embedding model takes and gives, found in its specification.
pub(crate) struct Shape {
    inputs: Vec<(Part, TensorSpec)>,
    output: TensorSpec,
    pooling: Pooling,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Ids,
    Mask,
    Types,
}

impl Shape {
    /// Finds it.
    ///
    /// # Errors
    /// The model is none that takes tokens and gives vectors.
    pub(crate) fn of(about: &About, pooling: Pooling) -> Result<Self, Refused> {
        let not = |why: &str| {
            Refused::bad(format_args!(
                "model {} gives no embeddings: {why}",
                about.name
            ))
        };
        let mut inputs = Vec::new();
        for spec in &about.inputs {
            let part = match spec.name() {
                "input_ids" => Part::Ids,
                "attention_mask" => Part::Mask,
                "token_type_ids" => Part::Types,
                _ => {
                    return Err(not(
                        "it takes other inputs than input_ids, attention_mask and token_type_ids",
                    ));
                }
            };
            if !matches!(spec.element(), ElementType::I64 | ElementType::I32)
                || spec.shape().len() != 2
            {
                return Err(not("its inputs are no [batch, tokens] of i64 or i32"));
            }
            inputs.push((part, spec.clone()));
        }
        if !inputs.iter().any(|(part, _)| *part == Part::Ids) {
            return Err(not("it takes no input_ids"));
        }
        let rank = if pooling == Pooling::None { 2 } else { 3 };
        let fits =
            |spec: &&TensorSpec| spec.element() == ElementType::F32 && spec.shape().len() == rank;
        let mut outputs = about.outputs.iter().filter(fits);
        let named = about.outputs.iter().filter(fits).find(|spec| {
            matches!(
                spec.name(),
                "last_hidden_state" | "token_embeddings" | "sentence_embedding"
            )
        });
        let output = named.or_else(|| outputs.next()).ok_or_else(|| {
            not(match pooling {
                Pooling::None => "it has no output [batch, dim] of f32; choose another --pooling",
                _ => "it has no output [batch, tokens, dim] of f32; perhaps --pooling NAME=none",
            })
        })?;
        Ok(Self {
            inputs,
            output: output.clone(),
            pooling,
        })
    }

    /// The output to ask for.
    pub(crate) fn output(&self) -> &str {
        self.output.name()
    }

    /// Texts in one call at most: the model's own batch, where it is fixed.
    pub(crate) fn batch_max(&self, most: usize) -> usize {
        let fixed = self.inputs.iter().find_map(|(_, spec)| spec.shape()[0]);
        fixed.map_or(most, |batch| usize::try_from(batch).unwrap_or(most))
    }

    /// The inputs of one call: rows of token ids, padded to the longest or to the model's own length, and up to
    /// the model's own batch.
    ///
    /// # Errors
    /// A row longer than the model takes.
    pub(crate) fn inputs(&self, rows: &[Vec<u32>]) -> Result<Vec<Tensor>, Refused> {
        let longest = rows.iter().map(Vec::len).max().unwrap_or(0).max(1);
        let fixed = self.inputs.iter().find_map(|(_, spec)| spec.shape()[1]);
        let length = fixed
            .and_then(|fixed| usize::try_from(fixed).ok())
            .unwrap_or(longest);
        if longest > length {
            return Err(Refused::bad(format_args!(
                "an input has {longest} tokens; the model takes {length}"
            )));
        }
        let batch = self.batch_max(rows.len());
        let mut tensors = Vec::with_capacity(self.inputs.len());
        for (part, spec) in &self.inputs {
            let mut numbers = Vec::with_capacity(batch * length);
            for row in (0..batch).map(|at| rows.get(at).map_or(&[][..], Vec::as_slice)) {
                let value = |at: usize| match (part, row.get(at)) {
                    (Part::Ids, Some(id)) => i64::from(*id),
                    (Part::Mask, Some(_)) => 1,
                    _ => 0,
                };
                numbers.extend((0..length).map(value));
            }
            let shape = [batch as u64, length as u64];
            let tensor = if spec.element() == ElementType::I64 {
                Tensor::from_i64(spec.name(), &shape, &numbers)
            } else {
                let narrow: Result<Vec<_>, _> = numbers.into_iter().map(i32::try_from).collect();
                let narrow = narrow
                    .map_err(|_| Refused::bad("a token id is larger than the model takes"))?;
                Tensor::from_i32(spec.name(), &shape, &narrow)
            };
            tensors.push(tensor.map_err(Refused::bad)?);
        }
        Ok(tensors)
    }

    /// One embedding a row.
    ///
    /// # Errors
    /// The answer is not of the shape that the specification promised.
    pub(crate) fn embeddings(
        &self,
        output: &Tensor,
        rows: &[Vec<u32>],
    ) -> Result<Vec<Vec<f32>>, Refused> {
        let other = || {
            Refused::new(
                axum::http::StatusCode::BAD_GATEWAY,
                "other-shape",
                "the model's answer is not one vector a text or a token; its owner must look",
            )
        };
        let values = output.to_f32().ok_or_else(other)?;
        let shape: Vec<_> = output
            .shape()
            .iter()
            .map(|n| usize::try_from(*n).unwrap_or(0))
            .collect();
        let (batch, length, dim) = match (self.pooling, &shape[..]) {
            (Pooling::None, &[batch, dim]) => (batch, 1, dim),
            (Pooling::Mean | Pooling::Cls, &[batch, length, dim]) => (batch, length, dim),
            _ => return Err(other()),
        };
        let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
        let too_short = self.pooling != Pooling::None && length < longest.max(1);
        if batch < rows.len() || dim == 0 || too_short {
            return Err(other());
        }
        let each = values.chunks_exact(length * dim).zip(rows);
        Ok(each
            .map(|(vectors, row)| self.pooled(vectors, row.len(), dim))
            .collect())
    }

    fn pooled(&self, vectors: &[f32], tokens: usize, dim: usize) -> Vec<f32> {
        match self.pooling {
            Pooling::None => vectors.to_vec(),
            Pooling::Cls => to_length_one(vectors[..dim].iter().map(|v| f64::from(*v)).collect()),
            Pooling::Mean => {
                let mut sum = vec![0.0; dim];
                for vector in vectors.chunks_exact(dim).take(tokens) {
                    for (sum, value) in sum.iter_mut().zip(vector) {
                        *sum += f64::from(*value);
                    }
                }
                // The mean's direction is the sum's.
                to_length_one(sum)
            }
        }
    }
}

fn to_length_one(vector: Vec<f64>) -> Vec<f32> {
    let length = vector
        .iter()
        .map(|v| v * v)
        .sum::<f64>()
        .sqrt()
        .max(f64::MIN_POSITIVE);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "embeddings are single precision"
    )]
    vector.into_iter().map(|v| (v / length) as f32).collect()
}

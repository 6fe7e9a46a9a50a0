//! From sentences to a model's inputs, and from its outputs to embeddings.
//!
//! ```text
//! sentences ─tokenizer.json─▶ ids ─padded─▶ input_ids, attention_mask, token_type_ids ─▶ model
//! [batch, tokens, dim] ─mean over the mask │ first token─▶ [batch, dim] ─÷ length─▶ embeddings
//! ```
//!
//! Always true: text becomes tokens here, on the user's machine, by the user's own file; which of the three
//! inputs are made, their types and fixed lengths follow the model's attested specification; padding has mask
//! 0 and counts in no mean, and a model without a mask gets rows of one length only; what is made of a request is
//! bounded before it is made. The file's truncation is obeyed, its padding is not.
//!
//! Sources: mean pooling and length 1 as sentence-transformers does for all-MiniLM-L6-v2.

use std::str::FromStr;

use bield_sdk::{ElementType, Tensor, TensorSpec};
use tokenizers::Tokenizer;

use crate::refused::Refused;
use crate::upstream::About;

/// Largest text: tokenizers keep some hundred bytes for each of its bytes.
const TEXT_BYTES_MAX: usize = 256 << 10;
/// Most tokens of one input.
pub(crate) const ROW_TOKENS_MAX: usize = 64 << 10;
/// Most elements of one input tensor of one call, padding included: 8 MiB of i64.
const CALL_TOKENS_MAX: usize = 1 << 20;

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
        if text.len() > TEXT_BYTES_MAX {
            return Err(Refused::new(
                axum::http::StatusCode::PAYLOAD_TOO_LARGE,
                "too-large",
                format_args!("a text has at most {TEXT_BYTES_MAX} bytes"),
            ));
        }
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

    fn fixed(&self, dimension: usize) -> Option<usize> {
        let mut fixed = self.inputs.iter().map(|(_, spec)| spec.shape()[dimension]);
        let fixed = fixed.find_map(|length| length)?;
        Some(usize::try_from(fixed).unwrap_or(usize::MAX))
    }

    /// Which rows go into one call each: at most `most`, or the model's own batch where that is fixed, and no more than
    /// a call's elements hold when they are padded. Rows of one length go together where there is no mask to
    /// tell padding from text.
    pub(crate) fn batches(&self, rows: &[Vec<u32>], most: usize) -> Vec<Vec<usize>> {
        let most = self.fixed(0).map_or(most, |batch| batch.clamp(1, most));
        let masked = self.inputs.iter().any(|(part, _)| *part == Part::Mask);
        let mut order: Vec<_> = (0..rows.len()).collect();
        if !masked {
            order.sort_by_key(|row| rows[*row].len()); // stable
        }
        let mut batches: Vec<Vec<usize>> = Vec::new();
        let mut longest = 0;
        for row in order {
            let length = rows[row].len();
            let together = batches.last().is_some_and(|batch| {
                let padded = length.max(longest).saturating_mul(batch.len() + 1);
                batch.len() < most && padded <= CALL_TOKENS_MAX && (masked || length == longest)
            });
            match batches.last_mut().filter(|_| together) {
                Some(batch) => {
                    batch.push(row);
                    longest = longest.max(length);
                }
                None => {
                    batches.push(vec![row]);
                    longest = length;
                }
            }
        }
        batches
    }

    /// The inputs of one call: rows of token ids, padded to the longest or to the model's own length, and up to
    /// the model's own batch.
    ///
    /// # Errors
    /// A row longer than the model takes, or one that a model without a mask would take with padding; more than
    /// a call holds.
    pub(crate) fn inputs(&self, rows: &[&[u32]]) -> Result<Vec<Tensor>, Refused> {
        let longest = rows.iter().map(|row| row.len()).max().unwrap_or(0).max(1);
        let length = self.fixed(1).unwrap_or(longest);
        if longest > length {
            return Err(Refused::bad(format_args!(
                "an input has {longest} tokens; the model takes {length}"
            )));
        }
        let masked = self.inputs.iter().any(|(part, _)| *part == Part::Mask);
        if !masked && rows.iter().any(|row| row.len() != length) {
            return Err(Refused::bad(format_args!(
                "the model takes {length} tokens and no attention_mask, so that shorter inputs cannot be told \
                 from padding: send inputs of that length"
            )));
        }
        let batch = self.fixed(0).unwrap_or(rows.len());
        if batch
            .checked_mul(length)
            .is_none_or(|all| all > CALL_TOKENS_MAX)
        {
            return Err(Refused::bad(format_args!(
                "a call of this model would take {batch} times {length} tokens; at most {CALL_TOKENS_MAX} are sent"
            )));
        }
        let mut tensors = Vec::with_capacity(self.inputs.len());
        for (part, spec) in &self.inputs {
            let mut numbers = Vec::with_capacity(batch * length);
            for row in (0..batch).map(|at| rows.get(at).copied().unwrap_or_default()) {
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
        rows: &[&[u32]],
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
        let longest = rows.iter().map(|row| row.len()).max().unwrap_or(0);
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

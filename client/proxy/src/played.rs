//! Models that answer without anybody, for tests of the faces: what goes in comes out.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bield_envelope::Digest;
use bield_sdk::{ElementType, Tensor, TensorSpec};

use crate::openers::Openers;
use crate::refused::Refused;
use crate::upstream::{About, Carried, Done, Upstream};

/// `echo` takes one tensor of each datatype, those that a call has, and gives them back; `words` takes token ids and
/// gives for each token the vector (id, 1).
#[derive(Default)]
pub(crate) struct Played {
    /// What the next call is refused with.
    pub(crate) refuses: Mutex<Option<Refused>>,
    /// Calls so far.
    pub(crate) calls: AtomicUsize,
    openers: Openers<(String, Vec<Tensor>)>,
}

impl Default for Openers<(String, Vec<Tensor>)> {
    fn default() -> Self {
        Self::new()
    }
}

fn spec(name: &str, element: ElementType, shape: Vec<Option<u64>>) -> TensorSpec {
    TensorSpec::new(name, element, shape).unwrap()
}

impl Played {
    fn answer(&self, model: &str, tensors: Vec<Tensor>) -> Done {
        let number = self.calls.fetch_add(1, Ordering::SeqCst);
        Done {
            model: model.to_owned(),
            version: "7".to_owned(),
            tensors,
            receipt: Digest::of("played", &[&number.to_be_bytes()]),
            start: Some("hot"),
            simulated: true,
        }
    }
}

fn vectors(ids: &Tensor) -> Tensor {
    let each = ids
        .to_i64()
        .unwrap()
        .into_iter()
        .flat_map(|id| [id as f32, 1.0]);
    let shape = [ids.shape()[0], ids.shape()[1], 2];
    Tensor::from_f32("last_hidden_state", &shape, &each.collect::<Vec<_>>()).unwrap()
}

impl Upstream for Played {
    fn names(&self) -> Vec<String> {
        vec!["echo".to_owned(), "words".to_owned()]
    }

    fn about(&self, model: &str) -> Result<About, Refused> {
        let free = || vec![None, Some(2)];
        let (inputs, outputs) = match model {
            "echo" => {
                let each =
                    ElementType::ALL.map(|element| spec(&element.to_string(), element, free()));
                (each.to_vec(), each.to_vec())
            }
            "words" => (
                vec![
                    spec("input_ids", ElementType::I64, vec![None, None]),
                    spec("attention_mask", ElementType::I64, vec![None, None]),
                ],
                vec![spec(
                    "last_hidden_state",
                    ElementType::F32,
                    vec![None, None, Some(2)],
                )],
            ),
            _ => return Err(Refused::unknown("no such model")),
        };
        Ok(About {
            name: model.to_owned(),
            version: "7".to_owned(),
            package: Digest::of("played", &[model.as_bytes()]),
            owner: "ed25519:nobody".to_owned(),
            inputs,
            outputs,
        })
    }

    fn call(
        &self,
        model: &str,
        inputs: Vec<Tensor>,
        outputs: Vec<String>,
    ) -> Result<Done, Refused> {
        self.about(model)?;
        if let Some(refused) = self.refuses.lock().unwrap().take() {
            return Err(refused);
        }
        if model == "words" {
            let ids = inputs.iter().find(|input| input.name() == "input_ids");
            return Ok(self.answer(model, vec![vectors(ids.unwrap())]));
        }
        let wanted = |tensor: &Tensor| {
            outputs.is_empty() || outputs.iter().any(|name| name == tensor.name())
        };
        Ok(self.answer(model, inputs.into_iter().filter(wanted).collect()))
    }

    fn seal(&self, model: &str, inputs: Vec<Tensor>, _: Vec<String>) -> Result<Carried, Refused> {
        let id = Digest::of("sealed", &[model.as_bytes()]);
        self.openers
            .keep(id, (model.to_owned(), inputs), Instant::now())?;
        Ok(Carried {
            id,
            sealed: b"sealed".to_vec(),
        })
    }

    fn open(&self, id: Digest, sealed: &[u8]) -> Result<Done, Refused> {
        let (model, inputs) = self.openers.take(id, Instant::now())?;
        if sealed != b"answer" {
            return Err(Refused::bad("not the answer"));
        }
        Ok(self.answer(&model, inputs))
    }

    fn simulated(&self) -> bool {
        true
    }
}

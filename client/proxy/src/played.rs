//! Models that answer without anybody, for tests of the faces: what goes in comes out.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bield_envelope::Digest;
use bield_sdk::{ElementType, Randomness, Tensor, TensorSpec};

use crate::oip::infer::Form;
use crate::openers::Openers;
use crate::refused::Refused;
use crate::upstream::{About, Carried, Done, Upstream};

/// `echo` takes one tensor of each datatype, those that a call has, and gives them back; `words` takes token ids and
/// gives for each token the vector (id, 1); `unmasked` too, without a mask.
#[derive(Default)]
pub(crate) struct Played {
    /// What the next call is refused with.
    pub(crate) refuses: Mutex<Option<Refused>>,
    /// Calls so far.
    pub(crate) calls: AtomicUsize,
    openers: Openers<(String, Vec<Tensor>, Form)>,
}

impl Default for Openers<(String, Vec<Tensor>, Form)> {
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
            kept: true,
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
                // Without FP16, which not every form carries.
                let told = each
                    .iter()
                    .filter(|spec| spec.element() != ElementType::F16);
                let told = told.cloned().collect();
                (each.to_vec(), told)
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
            "unmasked" => (
                vec![spec("input_ids", ElementType::I64, vec![None, None])],
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
        about: &About,
        inputs: Vec<Tensor>,
        outputs: Vec<String>,
    ) -> Result<Done, Refused> {
        let model = &*about.name;
        if let Some(refused) = self.refuses.lock().unwrap().take() {
            return Err(refused);
        }
        if model != "echo" {
            let ids = inputs.iter().find(|input| input.name() == "input_ids");
            return Ok(self.answer(model, vec![vectors(ids.unwrap())]));
        }
        let wanted = |tensor: &Tensor| {
            outputs.is_empty() || outputs.iter().any(|name| name == tensor.name())
        };
        Ok(self.answer(model, inputs.into_iter().filter(wanted).collect()))
    }

    fn seal(
        &self,
        about: &About,
        inputs: Vec<Tensor>,
        _: Vec<String>,
        form: Form,
    ) -> Result<Carried, Refused> {
        let waiting = (about.name.clone(), inputs, form);
        let id = self
            .openers
            .keep(waiting, Instant::now(), &mut Randomness)?;
        Ok(Carried {
            id,
            receipt: Digest::of("sealed", &[about.name.as_bytes()]),
            sealed: b"sealed".to_vec(),
        })
    }

    fn open(&self, id: Digest, sealed: &[u8]) -> Result<(Done, Form), Refused> {
        let (model, inputs, form) = self.openers.take(id, Instant::now())?;
        if sealed != b"answer" {
            return Err(Refused::bad("not the answer"));
        }
        Ok((self.answer(&model, inputs), form))
    }

    fn simulated(&self) -> bool {
        true
    }
}

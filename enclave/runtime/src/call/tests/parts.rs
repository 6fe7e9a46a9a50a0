//! Answers that leave while they are made: their order and end, engines that fail midway, hosts that alter them.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use bield_envelope::{RESPONSE_CHUNK_BYTES_MAX, ResponseReader};
use bield_package::tensor::TensorSpec;
use bield_protocol::parts::{Arriving, encode_request};

use super::*;
use crate::handing::{Asker, Gone};

mod slow;

/// What the scripted model does between its outputs.
#[derive(Clone)]
enum Step {
    Give(&'static str),
    GiveLarge,
    /// Waits until the test says so.
    Wait,
    Fail,
    Panic,
}

/// The real engine for whole answers; a script for those in parts.
struct Scripted {
    steps: Vec<Step>,
    go: Arc<Mutex<Receiver<()>>>,
}

struct ScriptedModel {
    inner: Box<dyn Model>,
    steps: Vec<Step>,
    go: Arc<Mutex<Receiver<()>>>,
}

impl Engine for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn load(&self, bytes: Vec<u8>, format: ModelFormat) -> Result<Box<dyn Model>, EngineError> {
        Ok(Box::new(ScriptedModel {
            inner: Rten::new(1).load(bytes, format)?,
            steps: self.steps.clone(),
            go: Arc::clone(&self.go),
        }))
    }
}

impl Model for ScriptedModel {
    fn engine(&self) -> &'static str {
        "scripted"
    }

    fn inputs(&self) -> &[TensorSpec] {
        self.inner.inputs()
    }

    fn outputs(&self) -> &[TensorSpec] {
        self.inner.outputs()
    }

    fn run_timed(
        &self,
        inputs: &[Tensor],
        outputs: &[&str],
    ) -> Result<(Vec<Tensor>, Option<Duration>), EngineError> {
        self.inner.run_timed(inputs, outputs)
    }

    fn run_in_parts(
        &self,
        _: &[Tensor],
        _: &[&str],
        each: &mut dyn FnMut(Tensor) -> ControlFlow<()>,
    ) -> Result<Option<Duration>, EngineError> {
        for step in &self.steps {
            match step {
                Step::Give(name) => {
                    if each(output(name)).is_break() {
                        break;
                    }
                }
                Step::GiveLarge => {
                    if each(large()).is_break() {
                        break;
                    }
                }
                Step::Wait => lock(&self.go).recv().unwrap(),
                Step::Fail => {
                    return Err(EngineError::UnknownOutput {
                        name: "failed".to_owned(),
                    });
                }
                Step::Panic => panic!("the script says so"),
            }
        }
        Ok(None)
    }

    fn computes_in_parts(&self) -> bool {
        true
    }
}

/// An output that leaves in three chunks.
fn large() -> Tensor {
    let numbers = RESPONSE_CHUNK_BYTES_MAX / 2;
    Tensor::from_f32("large", &[numbers as u64], &vec![0.5; numbers]).unwrap()
}

fn output(name: &str) -> Tensor {
    Tensor::from_f32(name, &[2], &[0.25, 0.75]).unwrap()
}

fn scripted(steps: &[Step]) -> (Stage, Runtime, Sender<()>) {
    let stage = Stage::new(Shelf::stocked());
    let (tell, go) = channel();
    let engine = Scripted {
        steps: steps.to_vec(),
        go: Arc::new(Mutex::new(go)),
    };
    let runtime = stage.runtime(engine, 64 * MIB);
    (stage, runtime, tell)
}

/// A request for the tiny model's outputs in parts.
fn in_parts(stage: &Stage, id: u8) -> (Vec<u8>, ResponseOpener) {
    named_in_parts(stage, id, &[])
}

/// A request for these outputs in parts, of which the script need not know.
fn named_in_parts(stage: &Stage, id: u8, names: &[&str]) -> (Vec<u8>, ResponseOpener) {
    let request = inference::Request {
        inputs: crate::testing::inputs(),
        outputs: names.iter().map(|name| (*name).to_owned()).collect(),
    };
    let body = encode_request(&request);
    stage.cast.seal(&stage.cast.user, stage.package, id, &body)
}

/// Somebody who passes parts on, up to a limit.
pub(super) struct Reads {
    to: Sender<Vec<u8>>,
    most: RefCell<usize>,
}

impl Reads {
    pub(super) fn all() -> (Reads, Receiver<Vec<u8>>) {
        Self::most(usize::MAX)
    }

    fn most(most: usize) -> (Reads, Receiver<Vec<u8>>) {
        let (to, parts) = channel();
        let most = RefCell::new(most);
        (Reads { to, most }, parts)
    }
}

impl Asker for Reads {
    fn is_gone(&self) -> bool {
        false
    }

    fn takes_more(&self) -> bool {
        true
    }

    fn wait_until_taken(&self, _: Duration) -> Result<(), Gone> {
        Ok(())
    }

    fn part(&self, bytes: &[u8]) -> Result<(), Gone> {
        let mut most = self.most.borrow_mut();
        *most = most.checked_sub(1).ok_or(Gone)?;
        self.to.send(bytes.to_vec()).map_err(|_| Gone)
    }
}

/// The user's end.
struct Opening {
    reader: ResponseReader,
    arriving: Arriving,
    begun: bool,
}

impl Opening {
    fn new(opener: ResponseOpener) -> Self {
        Self {
            reader: opener.begin(),
            arriving: Arriving::default(),
            begun: false,
        }
    }

    /// The items that this part completes.
    fn take(&mut self, part: &[u8]) -> Vec<Item> {
        let body = match std::mem::replace(&mut self.begun, true) {
            true => part.to_vec(),
            false => match Reply::decode(part).unwrap() {
                Reply::Streamed(_, body) => body,
                other => panic!("not in parts: {other:?}"),
            },
        };
        let mut plain = Vec::new();
        self.reader.push(&body, &mut plain).unwrap();
        self.arriving.push(&plain).unwrap();
        let mut items = Vec::new();
        while let Some(item) = self.arriving.next_item().unwrap() {
            items.push(item);
        }
        items
    }

    fn take_output(&mut self, part: &[u8]) -> Tensor {
        match &self.take(part)[..] {
            [Item::Output(tensor)] => tensor.clone(),
            other => panic!("not one output: {other:?}"),
        }
    }

    /// The item with which the answer ends.
    fn end(mut self, answer: Answer) -> Item {
        let Answer::Rest(Some(rest)) = answer else {
            panic!("no end")
        };
        let mut items = self.take(&rest);
        self.reader.finish().unwrap();
        assert_eq!(items.len(), 1);
        items.remove(0)
    }
}

fn verify(stage: &Stage, request: Digest, end: &End, tensors: Vec<Tensor>) -> bool {
    let bundle = ReceiptBundle::new(end.receipt.clone(), end.certificate.clone(), None);
    let mut anchor = Anchor::new(stage.cast.service.principal());
    anchor.allow_simulated = true;
    let expected = Expected {
        request: Some(request),
        package: Some(stage.package),
        output: Some(ExpectedOutput {
            salt: &end.salt,
            output: &Output { tensors }.encode(),
        }),
        ..Expected::default()
    };
    bield_receipt::verify(&bundle, &anchor, expected, bield_platform::now()).is_ok()
}

#[test]
fn an_output_leaves_before_the_next_is_made_and_the_receipt_covers_all() {
    let (stage, runtime, tell) = scripted(&[Step::Give("a"), Step::Wait, Step::Give("b")]);
    let (sealed, opener) = in_parts(&stage, 1);
    let request = opener.request();
    let (reads, parts) = Reads::all();
    let mut opening = Opening::new(opener);
    thread::scope(|scope| {
        let (runtime, sealed) = (&runtime, &sealed);
        let answering = scope.spawn(move || runtime.answer_to(sealed, &reads));
        let first = opening.take_output(&parts.recv().unwrap());
        assert_eq!(first, output("a"));
        // Only now may the model go on.
        tell.send(()).unwrap();
        let second = opening.take_output(&parts.recv().unwrap());
        assert_eq!(second, output("b"));
        let Item::End(end) = opening.end(answering.join().unwrap()) else {
            panic!("not answered")
        };
        let wrong: [&[Tensor]; 3] = [
            std::slice::from_ref(&first),
            &[second.clone(), first.clone()],
            &[first.clone(), second.clone(), second.clone()],
        ];
        for tensors in wrong {
            assert!(!verify(&stage, request, &end, tensors.to_vec()));
        }
        assert!(verify(&stage, request, &end, vec![first, second]));
    });
}

#[test]
fn a_real_engines_outputs_are_the_same_in_parts_and_whole() {
    let (stage, runtime) = stage();
    let (inference::Reply::Answered(whole), _) =
        answered(&runtime, stage.cast.request(stage.package, 1))
    else {
        panic!("refused")
    };
    let (sealed, opener) = in_parts(&stage, 2);
    let (reads, parts) = Reads::all();
    let answer = runtime.answer_to(&sealed, &reads);
    drop(reads);
    let mut opening = Opening::new(opener);
    let tensors: Vec<Tensor> = parts.iter().map(|p| opening.take_output(&p)).collect();
    assert_eq!(whole.output().unwrap().tensors, tensors);
    assert!(matches!(opening.end(answer), Item::End(_)));
}

#[test]
fn an_engine_that_fails_midway_ends_in_a_refusal_and_never_in_an_answer() {
    for (id, (bad, code)) in [(Step::Fail, "input-mismatch"), (Step::Panic, "internal")]
        .into_iter()
        .enumerate()
    {
        let (stage, runtime, _tell) = scripted(&[Step::Give("a"), bad]);
        let (sealed, opener) = in_parts(&stage, 1 + u8::try_from(id).unwrap());
        let (reads, parts) = Reads::all();
        let answer = runtime.answer_to(&sealed, &reads);
        let mut opening = Opening::new(opener);
        opening.take_output(&parts.recv().unwrap());
        match opening.end(answer) {
            Item::Refused(refusal) => assert_eq!(refusal.code, code),
            other => panic!("not refused: {other:?}"),
        }
        start_of(&runtime, stage.cast.request(stage.package, 9));
    }
}

#[test]
fn what_is_refused_before_the_first_output_is_refused_whole() {
    let (stage, runtime, _tell) = scripted(&[Step::Fail]);
    let (sealed, opener) = in_parts(&stage, 1);
    let (reads, _parts) = Reads::most(0);
    let Answer::Whole(Reply::Sealed(_, answer)) = runtime.answer_to(&sealed, &reads) else {
        panic!("not whole")
    };
    let reply = inference::Reply::decode(&opener.open(&answer).unwrap()).unwrap();
    assert!(matches!(reply, inference::Reply::Refused(_)));
}

#[test]
fn whoever_goes_away_midway_gets_no_end() {
    for most in [0, 1] {
        let steps = [Step::Give("a"), Step::Give("b"), Step::Give("c")];
        let (stage, runtime, _tell) = scripted(&steps);
        let (sealed, _) = in_parts(&stage, 1);
        let (reads, parts) = Reads::most(most);
        let answer = runtime.answer_to(&sealed, &reads);
        drop(reads);
        assert!(matches!(answer, Answer::Rest(None)), "after {most}");
        assert_eq!(parts.iter().count(), most);
        start_of(&runtime, stage.cast.request(stage.package, 2));
    }
}

#[test]
fn a_claimed_instance_gives_no_parts_and_pads_its_refusal() {
    let (stage, runtime) = stage();
    let grant = stage.cast.grant(stage.package, Isolation::Dedicated);
    stage.service.mind().grants = Some(vec![grant]);
    let (sealed, opener) = in_parts(&stage, 1);
    let (reads, _parts) = Reads::most(0);
    let Answer::Whole(Reply::Sealed(_, answer)) = runtime.answer_to(&sealed, &reads) else {
        panic!("not whole")
    };
    let plain = opener.open(&answer).unwrap();
    assert_eq!(plain.len(), 8 << 10);
    match inference::Reply::decode(&plain).unwrap() {
        inference::Reply::Refused(refusal) => assert_eq!(refusal.code, "no-parts"),
        other => panic!("{other:?}"),
    }
}

/// What a host does to the chunks of an answer.
type Attack = fn(&mut Vec<Vec<u8>>);

/// The chunks of a sealed response, its head before them.
fn chunks(sealed: &[u8]) -> Vec<Vec<u8>> {
    let (head, mut rest) = sealed.split_at(37);
    let mut chunks = vec![head.to_vec()];
    while let Some((word, _)) = rest.split_first_chunk() {
        let length = 4 + (u32::from_be_bytes(*word) & !(1 << 31)) as usize;
        chunks.push(rest[..length].to_vec());
        rest = &rest[length..];
    }
    chunks
}

/// How far a user gets with these bytes: outputs, whether an end was opened, whether nothing is missing.
fn opened(opener: ResponseOpener, sealed: &[u8]) -> (usize, bool, bool) {
    let (mut reader, mut arriving) = (opener.begin(), Arriving::default());
    let (mut outputs, mut ended) = (0, false);
    let mut plain = Vec::new();
    let pushed = reader.push(sealed, &mut plain);
    arriving.push(&plain).unwrap();
    while let Some(item) = arriving.next_item().unwrap() {
        match item {
            Item::Output(_) => outputs += 1,
            _ => ended = true,
        }
    }
    (outputs, ended, pushed.is_ok() && reader.finish().is_ok())
}

#[test]
fn a_host_that_cuts_reorders_drops_or_repeats_never_makes_an_answer() {
    let steps = [Step::Give("a"), Step::Give("b"), Step::Give("c")];
    let answer_of = |id| {
        let (stage, runtime, _tell) = scripted(&steps);
        let (sealed, opener) = in_parts(&stage, id);
        let (reads, parts) = Reads::all();
        let Answer::Rest(Some(rest)) = runtime.answer_to(&sealed, &reads) else {
            panic!("no end")
        };
        drop(reads);
        let all: Vec<u8> = parts.iter().chain([rest]).flatten().collect();
        let Reply::Streamed(_, body) = Reply::decode(&all).unwrap() else {
            panic!("not in parts")
        };
        (chunks(&body), opener)
    };
    let honest = |chunks: &[Vec<u8>]| chunks.concat();
    let (whole, opener) = answer_of(1);
    // Three outputs and an end, each in a chunk of its own.
    assert_eq!(whole.len(), 1 + 4);
    assert_eq!(opened(opener, &honest(&whole)), (3, true, true));
    let attacks: [(&str, Attack, usize); 6] = [
        ("cut", |chunks| chunks.truncate(4), 3),
        ("cut in a chunk", |chunks| chunks[4].truncate(9), 3),
        ("reordered", |chunks| chunks.swap(2, 3), 1),
        ("dropped", |chunks| drop(chunks.remove(2)), 1),
        ("repeated", |chunks| chunks.insert(2, chunks[1].clone()), 1),
        (
            "ended early",
            |chunks| {
                chunks.truncate(3);
                chunks[2][0] |= 0x80;
            },
            1,
        ),
    ];
    for (name, attack, outputs) in attacks {
        let (mut chunks, opener) = answer_of(1);
        attack(&mut chunks);
        let found = opened(opener, &honest(&chunks));
        assert_eq!(found, (outputs, false, false), "{name}");
    }
}

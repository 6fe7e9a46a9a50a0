//! What joint runs and tiers can bring, without anything around the engines; figures of decisions/0013 and 0015.
//!
//! ```sh
//! cargo run --release -p bield-engine --features engine-ort --example serving -- MODEL.onnx [libonnxruntime.so]
//! ```
//!
//! Everything that is compared alternates; printed are medians of ratios of neighbours.

use std::error::Error;
use std::hint::black_box;
use std::path::PathBuf;
use std::time::Instant;

use bield_engine::{Engine, Model, Rows, Rten, Shape, prove_rows, record_golden, run_together};
use bield_package::tensor::{ElementType, Tensor, TensorSpec};
use bield_package::{ModelFormat, TOLERANCE_PPM};

/// Requests in one joint run.
const CALLERS: usize = 8;
const ROUNDS: usize = 31;
#[cfg(feature = "engine-ort")]
const COLD_ROUNDS: usize = 9;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let Some(path) = arguments.first() else {
        return Err("say which model: MODEL.onnx [libonnxruntime.so]".into());
    };
    let onnx = std::fs::read(path)?;
    println!("{}, {} MiB", path.display(), onnx.len() >> 20);
    let rten = Rten::new(1);
    together(&*rten.load(onnx.clone(), ModelFormat::Onnx)?)?;
    #[cfg(feature = "engine-ort")]
    if let Some(library) = arguments.get(1) {
        let onnxruntime = bield_engine::OnnxRuntime::open(library, 1, 1)?;
        together(&*onnxruntime.load(onnx.clone(), ModelFormat::Onnx)?)?;
        tiers(&rten, &onnxruntime, &onnx)?;
    }
    Ok(())
}

/// Requests a second: one run of [`CALLERS`] ÷ as many single runs.
fn together(model: &dyn Model) -> Result<(), Box<dyn Error>> {
    let requests: Vec<Vec<Tensor>> = (0..CALLERS as u64)
        .map(|seed| inputs(model.inputs(), seed))
        .collect::<Result<_, _>>()?;
    let Some(shape) = Shape::of(model, &requests[0], &[]) else {
        println!("{}: its requests do not run together", model.engine());
        return Ok(());
    };
    let golden = record_golden(model, requests[0].clone(), TOLERANCE_PPM)?;
    match prove_rows(model, &[golden], CALLERS, &|| true) {
        Rows::Apart(_) => {}
        other => println!(
            "{}: a runtime would not join them: {other:?}",
            model.engine()
        ),
    }
    let borrowed: Vec<&[Tensor]> = requests.iter().map(Vec::as_slice).collect();
    let mut ratios = Vec::new();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        for request in &requests {
            black_box(model.run(request, &[])?);
        }
        let singly = started.elapsed();
        let started = Instant::now();
        black_box(run_together(model, &shape, &borrowed)?);
        ratios.push(singly.as_secs_f64() / started.elapsed().as_secs_f64());
    }
    let ratio = median(ratios);
    println!(
        "{}: {CALLERS} together ÷ singly, requests a second: {ratio:.2}",
        model.engine()
    );
    Ok(())
}

/// From bytes to the first answer and then hot, rten ÷ onnxruntime.
#[cfg(feature = "engine-ort")]
fn tiers(rten: &dyn Engine, onnxruntime: &dyn Engine, onnx: &[u8]) -> Result<(), Box<dyn Error>> {
    let (mut cold, mut hot) = (Vec::new(), Vec::new());
    for _ in 0..COLD_ROUNDS {
        let mut took = [(0.0, 0.0); 2];
        for (engine, took) in [rten, onnxruntime].into_iter().zip(&mut took) {
            let bytes = onnx.to_vec();
            let started = Instant::now();
            let model = engine.load(bytes, ModelFormat::Onnx)?;
            let inputs = inputs(model.inputs(), 1)?;
            black_box(model.run(&inputs, &[])?);
            let first = started.elapsed().as_secs_f64();
            black_box(model.run(&inputs, &[])?);
            let started = Instant::now();
            black_box(model.run(&inputs, &[])?);
            *took = (first, started.elapsed().as_secs_f64());
        }
        cold.push(took[0].0 / took[1].0);
        hot.push(took[0].1 / took[1].1);
    }
    println!("first answer, rten ÷ onnxruntime: {:.2}", median(cold));
    println!("later answers, rten ÷ onnxruntime: {:.2}", median(hot));
    Ok(())
}

/// One row of small numbers for each input; free dimensions have length one.
fn inputs(specs: &[TensorSpec], seed: u64) -> Result<Vec<Tensor>, Box<dyn Error>> {
    let mut random = seed;
    let mut number = || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 56) as u8
    };
    let tensor = |spec: &TensorSpec| {
        let shape: Vec<u64> = spec.shape().iter().map(|n| n.unwrap_or(1)).collect();
        let mut data = Vec::new();
        for _ in 0..shape.iter().product::<u64>() {
            let number = number();
            match spec.element() {
                ElementType::F32 => data.extend((f32::from(number) / 256.0).to_le_bytes()),
                ElementType::I32 => data.extend(i32::from(number % 2).to_le_bytes()),
                ElementType::I64 => data.extend(i64::from(number % 2).to_le_bytes()),
                element => return Err(format!("{} is {element}", spec.name()).into()),
            }
        }
        Ok(Tensor::new(spec.name(), spec.element(), shape, data)?)
    };
    specs.iter().map(tensor).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

//! What models take in onnxruntime, whose memory this program's allocator does not see: counted by the kernel, in a
//! process of its own.
//!
//! A process opens the library once, so another one, started from the same file, writes the `.ort` that is loaded.

#![cfg(feature = "engine-ort")]
#![expect(clippy::unwrap_used, reason = "tests may stop where they stand")]

use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

use bield_engine::{Engine, OnnxRuntime};
use bield_fixtures::{IMAGE_SHAPE, Network, input_image};
use bield_package::ModelFormat;
use bield_package::tensor::Tensor;

const SESSIONS: usize = 2;
const TARGET: &str = "BIELD_TEST_ORT_TARGET";

#[test]
fn sessions_of_an_ort_file_share_its_weights_and_stay_within_the_footprint() {
    let Some(library) = env::var_os("BIELD_ONNXRUNTIME").map(PathBuf::from) else {
        eprintln!("NOT RUN: BIELD_ONNXRUNTIME names no library; see cargo xtask fetch-onnxruntime");
        return;
    };
    let target = env::temp_dir().join(format!("bield-densenet-{}.ort", std::process::id()));
    let mut writer = Command::new(env::current_exe().unwrap());
    writer
        .args(["--exact", "write_ort", "--ignored"])
        .env(TARGET, &target);
    assert!(writer.status().unwrap().success());
    let bytes = fs::read(&target).unwrap();
    fs::remove_file(&target).unwrap();

    let engine = OnnxRuntime::open(&library, 1, SESSIONS).unwrap();
    let footprint = engine.footprint(ModelFormat::Ort, bytes.len() as u64);
    // The library's own pages come with the first run.
    let warm = engine.load(bield_fixtures::tiny_model(), ModelFormat::Onnx);
    let input = Tensor::from_f32("input", &[1, 4], &[0.5; 4]).unwrap();
    warm.unwrap().run(&[input], &[]).unwrap();
    // The file itself is there when counting begins.
    let before = resident() - bytes.len() as u64;
    let model = engine.load(bytes, ModelFormat::Ort).unwrap();
    let image = Tensor::from_f32("input", &IMAGE_SHAPE, &input_image(1)).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..2 * SESSIONS {
            scope.spawn(|| model.run(std::slice::from_ref(&image), &[]).unwrap());
        }
    });
    let after = resident() - before;
    assert!(after <= footprint.resident, "{after} bytes, {footprint:?}");
    drop(model);
    println!("{after} bytes with {SESSIONS} sessions");
    let left = resident().saturating_sub(before);
    println!("{left} bytes after");
    assert!(
        left <= footprint.resident / 2,
        "{left} bytes stay, {footprint:?}"
    );
}

#[test]
#[ignore = "started by the other test"]
fn write_ort() {
    let environment = ort::init_from(env::var_os("BIELD_ONNXRUNTIME").unwrap())
        .unwrap()
        .build()
        .unwrap();
    let model = bield_fixtures::densenet121();
    ort::session::Session::builder(&environment)
        .unwrap()
        .with_optimization_level(ort::session::builder::GraphOptimizationLevel::All)
        .unwrap()
        .with_optimized_model_path(env::var_os(TARGET).unwrap())
        .unwrap()
        .with_config_entry("session.save_model_format", "ORT")
        .unwrap()
        .commit_from_memory(&model)
        .unwrap();
    assert!(model.len() as u64 == Network::Densenet121.file_bytes());
}

/// Bytes of this process in memory.
fn resident() -> u64 {
    let told = fs::read_to_string("/proc/self/status").unwrap();
    let line = told
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kibibytes << 10
}

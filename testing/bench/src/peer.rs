//! A peer people use today: onnxruntime from Python on the plaintext file, if it is installed
//! (`pip install onnxruntime numpy`). The interpreter's own start is not counted.

use std::path::Path;
use std::process::Command;

/// Milliseconds to load and answer once, in a fresh process; `None` without the peer.
pub(crate) fn cold(file: &Path, threads: usize) -> Option<f64> {
    let done = Command::new("python3")
        .arg("-c")
        .arg(SCRIPT)
        .arg(file)
        .arg(threads.to_string())
        .output();
    let done = done.ok().filter(|done| done.status.success())?;
    String::from_utf8(done.stdout).ok()?.trim().parse().ok()
}

const SCRIPT: &str = "
import sys, time
import numpy as np, onnxruntime as ort
image = np.zeros((1, 3, 224, 224), dtype=np.float32)
options = ort.SessionOptions()
options.intra_op_num_threads = int(sys.argv[2])
started = time.perf_counter()
session = ort.InferenceSession(sys.argv[1], options, providers=['CPUExecutionProvider'])
session.run(None, {session.get_inputs()[0].name: image})
print((time.perf_counter() - started) * 1e3)
";

//! `bield pack`.

mod function;

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Cursor, Read as _, Write as _};
use std::path::{Path, PathBuf};

use bield_envelope::{Principal, SigningKey};
use bield_package::onnx::Signature;
use bield_package::prepared::{PreparedError, RtenFile, in_rten, ort_signature};
use bield_package::{
    ManifestDraft, ModelFormat, PackageHead, PackageKey, PackageName, PackageSummary,
    PackageVersion, pack,
};
use bield_sdk::{Home, Randomness};
use clap::Args;
use serde_json::json;

use crate::failure::Failure;
use crate::output::Output;
use crate::{progress, tensors};

/// Seal a model or a function into a package
///
/// The package holds the model in 1 MiB sealed chunks, and a sealed description: inputs and outputs read
/// from the model, golden pairs. Anyone may store it; only code you grant it to can open it. You sign it,
/// so you need an identity (bield init).
///
/// ONNX runs on every engine. A .rten file (from rten-convert) or an .ort file (from onnxruntime) runs on that
/// engine only, and is not parsed and copied first: it is ready sooner, in half the memory and less.
///
/// A function is packed by its bield.toml, which says what it is called, where its WebAssembly component is, and what it may
/// use: limits, buckets, models. One with buckets gets a state, once, whose keys stay in the home directory
/// (functions/NAME) and go into every version's package, sealed: whoever is granted the function can open its state.
/// Compiled code (.cwasm) is never accepted; the enclave compiles.
///
/// The package's key stays in the home directory (packages/DIGEST.key), written before the package
/// appears. Without it nobody can grant or open the package: back it up.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Pack {
    /// The model: one file with its weights inside, ONNX, .rten or .ort, told by its content; or the directory of a
    /// function, or its bield.toml
    model: PathBuf,

    /// The ONNX that a .rten file was made from: it knows which integers are i64 and which are bool
    #[arg(long, value_name = "MODEL.onnx")]
    onnx: Option<PathBuf>,

    /// What to call a model: a-z 0-9 . _ - (public)
    #[arg(long)]
    name: Option<PackageName>,

    /// Which edition of it this is, such as 1.0.3 (public)
    #[arg(long)]
    version: Option<PackageVersion>,

    /// File with an input and the expected output; up to three
    #[arg(long, value_name = "PAIR.json")]
    golden: Vec<PathBuf>,

    /// Run the function's build command first
    #[arg(long)]
    build: bool,

    /// The key service whose certificates admit runtimes to the function's state [default: the one that trust.toml
    /// means]
    #[arg(long, value_name = "PRINCIPAL")]
    service: Option<Principal>,

    /// Where to write the package
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// Replace the output file if it is there; keys of older packages are kept in any case
    #[arg(long)]
    force: bool,
}

impl Pack {
    pub(crate) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        if self.output.exists() && !self.force {
            return Err(Failure::local(format_args!(
                "{} exists; choose another -o, or replace it with --force",
                self.output.display()
            )));
        }
        if function::is_one(&self.model) {
            return self.pack_function(home, output);
        }
        if self.build || self.service.is_some() {
            return Err(Failure::local(format_args!(
                "--build and --service are for functions; {} is none",
                self.model.display()
            )));
        }
        let model = fs::read(&self.model).map_err(|error| at(&self.model, error))?;
        // First: who gives a function's code is not to be asked for a model's name.
        function::refuse_code(&self.model, &model)?;
        let (Some(name), Some(version)) = (self.name.clone(), self.version.clone()) else {
            return Err(Failure::local(
                "a model needs --name and --version; a function's bield.toml has its own",
            ));
        };
        let identity = home.identity()?;
        let (format, signature) = self.describe(&model)?;
        let risky = signature.padded_integer_convolutions.len();
        if risky > 0 && format == ModelFormat::Rten {
            let what = "it has padded integer convolutions, which rten computes wrongly; export the model in f32";
            return Err(at(&self.model, what));
        }
        if risky > 0 {
            output.note(format_args!(
                "warning: {risky} padded integer convolutions; the default engine refuses such models"
            ));
        }
        let mut ends = signature.inputs.iter().chain(&signature.outputs);
        if let Some(end) = ends.find(|end| in_rten(end.element()).is_none())
            && format == ModelFormat::Onnx
        {
            output.note(format_args!(
                "warning: {end} is of a type that the default engine refuses; onnxruntime runs such models"
            ));
        }
        let mut draft = ManifestDraft::new(name.clone(), version.clone(), format, signature);
        let golden = self.golden.iter().map(|path| tensors::read_golden(path));
        draft.golden = golden.collect::<Result<_, _>>()?;
        let (inputs, outputs) = (draft.inputs.clone(), draft.outputs.clone());

        let (summary, _) = seal(home, &identity, &model, draft, &self.output)?;

        let text = |specs: &[bield_sdk::TensorSpec]| -> Vec<String> {
            specs.iter().map(ToString::to_string).collect()
        };
        let key_path = home.package_key_path(summary.digest).display().to_string();
        output.show(
            &json!({
                "package": summary.digest.to_string(),
                "name": name.as_str(),
                "version": version.as_str(),
                "owner": identity.principal().to_string(),
                "file": self.output.display().to_string(),
                "key": key_path,
                "format": format.to_string(),
                "model_bytes": summary.model_bytes,
                "package_bytes": summary.package_bytes,
                "chunks": summary.chunk_count,
                "inputs": text(&inputs),
                "outputs": text(&outputs),
                "golden_pairs": self.golden.len(),
            }),
            format_args!(
                "{}\n  sealed   {} ({format}, {} bytes, {} chunks)\n  takes    {}\n  gives    {}\n  golden   {} \
                 pairs\n  key      {key_path} (back it up: without it the package is lost)",
                summary.digest,
                self.output.display(),
                summary.package_bytes,
                summary.chunk_count,
                text(&inputs).join(", "),
                text(&outputs).join(", "),
                self.golden.len(),
            ),
        );
        Ok(())
    }
}

impl Pack {
    /// What the model's bytes are, and what it takes and gives.
    fn describe(&self, model: &[u8]) -> Result<(ModelFormat, Signature), Failure> {
        let refuse = |error: PreparedError| at(&self.model, error);
        let format = format_of(model);
        let signature = match (format, &self.onnx) {
            (ModelFormat::Rten, None) => RtenFile::read(model).and_then(RtenFile::signature),
            (ModelFormat::Rten, Some(path)) => {
                let file = RtenFile::read(model).map_err(refuse)?;
                let onnx = fs::read(path).map_err(|error| at(path, error))?;
                if file
                    .onnx_sha256
                    .as_ref()
                    .is_some_and(|noted| *noted != sha256(&onnx))
                {
                    let what =
                        "another model than the .rten file was made from: its SHA-256 differs";
                    return Err(at(path, what));
                }
                let onnx = Signature::read(&onnx).map_err(|error| at(path, error))?;
                file.signature_from(onnx)
            }
            (_, Some(_)) => {
                return Err(Failure::local(format_args!(
                    "--onnx is for .rten files only; {} is {format} and says everything itself",
                    self.model.display()
                )));
            }
            (ModelFormat::Ort, None) => ort_signature(model),
            (ModelFormat::Onnx | ModelFormat::Component, None) => {
                let read = Signature::read(model);
                return Ok((format, read.map_err(|error| at(&self.model, error))?));
            }
        };
        Ok((format, signature.map_err(refuse)?))
    }
}

/// By the marks that `.rten` and `.ort` files start with; ONNX has none.
fn format_of(model: &[u8]) -> ModelFormat {
    match model {
        [b'R', b'T', b'E', b'N', ..] => ModelFormat::Rten,
        [_, _, _, _, b'O', b'R', b'T', b'M', ..] => ModelFormat::Ort,
        _ => ModelFormat::Onnx,
    }
}

fn sha256(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let digits = digest.as_ref().iter().map(|byte| format!("{byte:02x}"));
    digits.collect()
}

/// Seals `model` under a fresh key into a file that appears whole, after its key is kept.
pub(crate) fn seal(
    home: &Home,
    owner: &SigningKey,
    model: &[u8],
    draft: ManifestDraft,
    output: &Path,
) -> Result<(PackageSummary, PackageKey), Failure> {
    let key = PackageKey::generate(&mut Randomness);
    let unfinished = Unfinished::beside(output)?;
    let bar = progress::bytes("sealing");
    let mut sink = BufWriter::with_capacity(1 << 20, &unfinished.file);
    let summary = pack(
        &mut Cursor::new(model),
        draft,
        owner,
        &key,
        &mut Randomness,
        &mut sink,
        &mut progress::advance(&bar),
    )?;
    sink.flush().map_err(|error| at(output, error))?;
    drop(sink);
    bar.finish_and_clear();
    // The key must be on disk before the package can be: a package without its key is lost.
    keep(home, &summary, &key, &unfinished.path)?;
    unfinished.finish(output)?;
    Ok((summary, key))
}

/// Keeps the key, and the head, so that a grant needs no package at hand.
fn keep(
    home: &Home,
    summary: &PackageSummary,
    key: &PackageKey,
    package: &Path,
) -> Result<(), Failure> {
    home.keep_package_key(summary.digest, key)?;
    let open = || File::open(package).map_err(|error| at(package, error));
    let bytes = PackageHead::read(&mut open()?)?.head_bytes();
    let mut head = Vec::new();
    open()?
        .take(bytes)
        .read_to_end(&mut head)
        .map_err(|error| at(package, error))?;
    Ok(home.keep_package_head(summary.digest, &head)?)
}

/// A package being written: removed unless it is finished.
struct Unfinished {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
}

impl Unfinished {
    pub(crate) fn beside(output: &Path) -> Result<Self, Failure> {
        let mut name = output.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.unfinished", std::process::id()));
        let path = output.with_file_name(name);
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        Ok(Self {
            file: file.map_err(|error| at(&path, error))?,
            path,
        })
    }

    pub(crate) fn finish(self, output: &Path) -> Result<(), Failure> {
        let synced = self
            .file
            .sync_all()
            .and_then(|()| fs::rename(&self.path, output));
        synced.map_err(|error| at(output, error))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After the rename nothing is left under this name.
        let _ = fs::remove_file(&self.path);
    }
}

pub(crate) fn at(path: &Path, error: impl std::fmt::Display) -> Failure {
    Failure::local(format_args!("{}: {error}", path.display()))
}

const EXAMPLES: &str = r#"A golden pair is an input with the output a correct engine computes. Every
runtime runs it when it loads the model, and refuses to serve when the result
differs by more than tolerance_ppm (parts per million of the largest value;
1000 unless given):

  {"inputs":   {"bytes":  {"element": "i32", "shape": [1, 4], "data": [35, 33, 47, 98]}},
   "expected": {"scores": {"element": "f32", "shape": [1, 2], "data": [0.25, 0.75]}},
   "tolerance_ppm": 1000}

Examples:
  bield pack model.onnx --name magika --version 3.3 -o magika.bield
  bield pack model.onnx --name magika --version 3.4 --golden pair.json -o magika.bield --force
  bield pack model.rten --onnx model.onnx --name magika --version 3.5 -o magika.bield
  bield pack . --build -o cart.bield

A function's bield.toml:

  [function]
  name = "cart"
  version = "0.1.0"
  source = "function.wasm"         # the component, beside this file
  build = "npm run build"          # optional: what --build runs

  [limits]                         # of one request; each is optional
  memory = "64 MiB"
  deadline = "10 s"
  host_calls = 1000000
  output = "4 MiB"
  log = "64 KiB"

  [[bucket]]                       # what it may open
  name = "shop"
  consistency = "linearizable"     # or epoch, eventual
  durability = "local-sync"        # or local, memory

  [[model]]                        # what it may load, and by which name
  name = "classify"
  package = "magika@1.1.0"         # digest, file, name or name@version"#;

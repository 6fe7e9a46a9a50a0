//! `bield measure`.

use std::path::{Path, PathBuf};

use bield_evidence::{Measurement, configuration_digest, program_digest, software_measurement};
use clap::Args;
use serde_json::json;

use crate::failure::Failure;
use crate::output::Output;

/// Recompute the measurement of a program and its configuration
///
/// A measurement names code: the program's bytes and every byte of its measured configuration. What a
/// release states, a grant names and evidence shows must be the value you compute here, offline, from
/// files you trust. This is the measurement in a software TEE.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Measure {
    /// The program's file
    program: PathBuf,

    /// Its measured configuration, byte for byte
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

impl Measure {
    pub(crate) fn run(self, output: Output) -> Result<(), Failure> {
        let (program, configuration) = (read(&self.program)?, read(&self.config)?);
        let (program, configuration) = (
            program_digest(&program),
            configuration_digest(&configuration),
        );
        let measurement = software_measurement(program, configuration);
        output.show(
            &json!({
                "measurement": measurement,
                "program_digest": program.to_string(),
                "configuration_digest": configuration.to_string(),
            }),
            &measurement,
        );
        Ok(())
    }
}

/// Measures files as the software TEE does.
pub(crate) fn measure(program: &Path, configuration: &[u8]) -> Result<Measurement, Failure> {
    let program = program_digest(&read(program)?);
    Ok(software_measurement(
        program,
        configuration_digest(configuration),
    ))
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| Failure::local(format_args!("{}: {error}", path.display())))
}

const EXAMPLES: &str = r#"Examples:
  bield measure target/release/bield-runtime --config .bield-dev/runtime.toml"#;

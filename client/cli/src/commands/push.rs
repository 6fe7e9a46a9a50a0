//! `bield push`.

use std::fs::File;
use std::io::Seek as _;
use std::path::PathBuf;

use bield_package::PackageHead;
use bield_sdk::{Gateway, Home, Stored};
use clap::Args;
use serde_json::json;

use crate::failure::Failure;
use crate::output::Output;
use crate::progress;

/// Upload a sealed package to the gateway
///
/// The gateway stores it under its digest and cannot open it. Pushing a package that is there already
/// sends nothing.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Push {
    /// The package
    file: PathBuf,
}

impl Push {
    pub(crate) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        let trust = home.trust()?;
        let at = |error: std::io::Error| {
            Failure::local(format_args!("{}: {error}", self.file.display()))
        };
        let mut file = File::open(&self.file).map_err(at)?;
        let head = PackageHead::read(&mut file)?;
        let (digest, bytes) = (head.digest(), head.package_bytes());
        let length = file.metadata().map_err(at)?.len();
        if length != bytes {
            return Err(Failure::refused(format_args!(
                "{} has {length} bytes of a package of {bytes}: pack or copy it again",
                self.file.display()
            )));
        }
        file.rewind().map_err(at)?;
        let gateway = Gateway::new(trust.gateway());
        let bar = progress::bytes("uploading");
        let stored = gateway.put_package(digest, &mut file, bytes, &mut progress::advance(&bar));
        bar.finish_and_clear();
        let sent = stored? == Stored::Uploaded;
        let word = if sent { "uploaded" } else { "already there" };
        output.show(
            &json!({
                "package": digest.to_string(),
                "bytes": bytes,
                "gateway": gateway.url(),
                "uploaded": sent,
            }),
            format_args!("{digest}\n  {word} at {} ({bytes} bytes)", gateway.url()),
        );
        Ok(())
    }
}

const EXAMPLES: &str = r#"Examples:
  bield push magika.bield"#;

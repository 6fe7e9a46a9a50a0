//! `bield proxy`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use bield_proxy::{Models, Pooling, Proxy, Settings, Text, Token};
use bield_sdk::{Home, PackageReference, Reference, Trust};
use clap::Args;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::principal;
use crate::failure::Failure;
use crate::output::Output;
use crate::progress;

/// Serve sealed models to tools on this machine, in the protocols they speak
///
/// Verifies the key service's evidence first, as `bield call` does, and does not start otherwise. Then it
/// listens on this machine's loopback and speaks the Open Inference Protocol v2 (REST with binary tensors,
/// and gRPC: tritonclient, kserve) and OpenAI's models and embeddings (openai). Whatever a tool sends is
/// sealed here to the verified code and leaves this machine as ciphertext; an answer is given only after its
/// receipt was verified. Answers name their receipt in the header bield-receipt; `bield receipt ID` shows
/// it. What models take and give is told from what the attested key service says, never by the gateway.
///
/// Between the tool and this proxy everything is in the clear, and whoever reaches the port calls in your
/// name. Other users of this machine reach it too: give --token-file where there are any. Requests that
/// do not name localhost, and pages of other sites, are refused.
///
/// Text becomes tokens here: for embeddings of text give the model's own tokenizer.json with --tokenizer.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct ProxyCommand {
    /// Serve the package REFERENCE (a digest, a name, or name@version) as NAME; repeat for more [default:
    /// all that `owner` of trust.toml granted you, by its names]
    #[arg(long = "model", value_name = "NAME=REFERENCE", value_parser = named::<Reference>)]
    models: Vec<(String, Reference)>,

    /// Whose packages names mean: a principal, or `me` [default: `owner` of trust.toml]
    #[arg(long, value_name = "PRINCIPAL")]
    owner: Option<String>,

    /// Where REST and OpenAI's interface listen; loopback only [default: 127.0.0.1:8000, and the same port
    /// of [::1] where neither address is given]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,

    /// Where gRPC listens; loopback only [default: 127.0.0.1:8001, as above]
    #[arg(long, value_name = "ADDRESS")]
    grpc_listen: Option<SocketAddr>,

    /// File with a token that every request must show (authorization: Bearer TOKEN); mode 600, 16 bytes or
    /// more
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// The model's tokenizer.json, for embeddings of text; repeat for more
    #[arg(long = "tokenizer", value_name = "NAME=FILE", value_parser = named::<PathBuf>)]
    tokenizers: Vec<(String, PathBuf)>,

    /// How one embedding is made of a vector for each token: mean, cls, or none where the model gives one;
    /// repeat for more [default: mean]
    #[arg(long = "pooling", value_name = "NAME=POOLING", value_parser = named::<Pooling>)]
    poolings: Vec<(String, Pooling)>,
}

impl ProxyCommand {
    pub(crate) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        let user = home.identity()?;
        let trust = home.trust()?;
        let wanted = self.wanted(home, &trust)?;
        let settings = self.settings()?;
        let has_token = settings.token.is_some();

        let spinner = progress::spinner("verifying the key service");
        let models = Models::verify(Home::at(home.path()), trust, user, wanted);
        spinner.finish_and_clear();
        let models = models.map_err(Failure::from)?;
        let (list, simulated) = (models.list(), models.simulated());

        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|error| Failure::local(format_args!("threads do not start: {error}")))?;
        let skipped = models.skipped().to_vec();
        let served = runtime.block_on(async {
            // Before anybody is told that it serves, so that none is lost.
            let fail = |error| Failure::local(format_args!("cannot listen for signals: {error}"));
            let mut interrupted = signal(SignalKind::interrupt()).map_err(fail)?;
            let mut terminated = signal(SignalKind::terminate()).map_err(fail)?;
            let grpc_listen = self.grpc_listen.unwrap_or(LISTEN_GRPC);
            let listen = self.listen.unwrap_or(LISTEN);
            let proxy = Proxy::listen(models, settings, listen, Some(grpc_listen));
            let mut proxy = proxy.await.map_err(Failure::from)?;
            if self.listen.is_none() && self.grpc_listen.is_none() {
                let also = proxy.also_on_v6().await.map_err(Failure::from)?;
                output.note(if also {
                    "the same ports of [::1] are served too, where clients look for `localhost`"
                } else {
                    "this machine lets nobody listen on [::1]; only 127.0.0.1 is served"
                });
            }
            let of = |error| Failure::local(format_args!("the system does not tell where it listens: {error}"));
            let rest = proxy.rest_address().map_err(of)?;
            let grpc = proxy.grpc_address().map_err(of)?.unwrap_or(grpc_listen);
            for (package, why) in &skipped {
                output.note(format_args!("{package} is granted and not served: {why}"));
            }
            if simulated {
                output.note(SIMULATED);
            }
            if !has_token {
                output.note(
                    "no --token-file: every process and every user of this machine can call in your name",
                );
            }
            let value = json!({
                "listening": format!("http://{rest}"),
                "grpc": grpc.to_string(),
                "token": has_token,
                "simulated": simulated,
                "models": list.iter().map(|(name, package, called)| json!({
                    "name": name, "package": package.to_string(), "reference": called,
                })).collect::<Vec<_>>(),
            });
            let mut text = format!("serving on http://{rest} and gRPC {grpc}; stop with ctrl-c");
            for (name, package, called) in &list {
                // Writing to a string cannot fail.
                let _ = write!(text, "\n  {name}  {called}  {package}");
            }
            output.show(&value, text);
            proxy
                .serve(async move {
                    tokio::select! {
                        _ = interrupted.recv() => {}
                        _ = terminated.recv() => {}
                    }
                    // A second signal does not wait for calls.
                    tokio::spawn(async move {
                        tokio::select! {
                            _ = interrupted.recv() => {}
                            _ = terminated.recv() => {}
                        }
                        std::process::exit(130);
                    });
                })
                .await;
            Ok(())
        });
        // Calls that a gateway holds must not hold the process.
        runtime.shutdown_timeout(Duration::from_secs(1));
        served
    }

    fn wanted(
        &self,
        home: &Home,
        trust: &Trust,
    ) -> Result<Vec<(String, PackageReference)>, Failure> {
        let owner = self
            .owner
            .as_ref()
            .map(|owner| principal(home, owner))
            .transpose()?;
        if owner.is_some() && self.models.is_empty() {
            return Err(Failure::local(
                "--owner says whose packages --model names: give --model NAME=REFERENCE too",
            ));
        }
        let owner = owner.or(trust.owner());
        let each = self
            .models
            .iter()
            .map(|(name, reference)| Ok((name.clone(), reference.of(owner)?)));
        each.collect()
    }

    fn settings(&self) -> Result<Settings, Failure> {
        let at = |path: &Path, why: &dyn std::fmt::Display| {
            Failure::local(format_args!("{}: {why}", path.display()))
        };
        let token = match &self.token_file {
            Some(path) => Some(Token::read(path).map_err(|why| at(path, &why))?),
            None => None,
        };
        let mut texts = HashMap::new();
        for (name, path) in &self.tokenizers {
            let json = std::fs::read(path).map_err(|error| at(path, &error))?;
            let text = Text::read(&json).map_err(|why| at(path, &why))?;
            texts.insert(name.clone(), text);
        }
        let poolings = self.poolings.iter().cloned().collect();
        Ok(Settings {
            token,
            texts,
            poolings,
        })
    }
}

/// `NAME=VALUE`, where the name can stand in a path.
fn named<T: FromStr>(text: &str) -> Result<(String, T), String>
where
    T::Err: std::fmt::Display,
{
    let (name, value) = text.split_once('=').ok_or("NAME=… is wanted")?;
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-@:".contains(c);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(fits) {
        return Err(format!(
            "a name has 1 to {NAME_BYTES_MAX} letters, digits and . _ - @ :"
        ));
    }
    let value = value.parse().map_err(|error: T::Err| error.to_string())?;
    Ok((name.to_owned(), value))
}

/// Where REST and gRPC listen when nothing is said.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8000);
const LISTEN_GRPC: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8001);

/// Longest name of a model here.
const NAME_BYTES_MAX: usize = 128;

const SIMULATED: &str = "SOFTWARE TEE: the key service's evidence is simulated; whoever runs its machine can \
                         read everything. Answers say so in the header bield-tee";

const EXAMPLES: &str = r#"Examples:
  bield proxy
  bield proxy --model magika=magika@3.3 --model minilm=3a... --tokenizer minilm=tokenizer.json
  bield proxy --listen 127.0.0.1:0 --grpc-listen 127.0.0.1:0 --token-file ~/.bield/proxy-token

Clients (docs/proxy.md has more):
  tritonclient.http.InferenceServerClient("127.0.0.1:8000")
  tritonclient.grpc.InferenceServerClient("127.0.0.1:8001")
  openai.OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="the token, or anything")"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_named_once_and_its_name_fits_into_a_path() {
        assert_eq!(
            named::<PathBuf>("mini-lm@1=a=b.json"),
            Ok(("mini-lm@1".to_owned(), PathBuf::from("a=b.json")))
        );
        for wrong in ["magika", "=magika", "a/b=c", "a b=c", "a%2f=c"] {
            assert!(named::<PathBuf>(wrong).is_err(), "{wrong}");
        }
        assert!(named::<Pooling>("a=max").is_err_and(|why| why.contains("mean, cls or none")));
    }
}

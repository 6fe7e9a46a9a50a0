//! Requests sealed by hand and posted raw: what the SDK checks before it sends, a stranger does not.

use std::convert::Infallible;
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bield_envelope::{RequestHeader, ResponseOpener, SigningKey, Time, seal_request};
use bield_grant::CodeSelector;
use bield_protocol::inference::{self, Answer as Inferred};
use bield_protocol::refusal::Refusal;
use bield_protocol::service::{KeyConfiguration, PackageReference, Reply, Request};
use bield_sdk::{Randomness, Tensor, Trust, now};
use bield_session::{Expect, Freshness, Local, Role, connect, provider};
use rand_core::{CryptoRng, Rng as _, TryCryptoRng, TryRng};

/// A sealed request and what opens its answer.
pub struct Letter {
    /// What is posted.
    pub bytes: Vec<u8>,
    opener: ResponseOpener,
}

impl Letter {
    /// Seals `inputs` for the package and code of `to`, asking for all outputs.
    ///
    /// # Errors
    /// It cannot be sealed.
    pub fn seal(
        to: &KeyConfiguration,
        sender: &SigningKey,
        inputs: Vec<Tensor>,
        created: Time,
    ) -> anyhow::Result<Self> {
        Self::seal_with(to, sender, inputs, created, &mut Randomness)
    }

    /// Seals the same bytes twice: what opens the answer to the first post, and to the second.
    ///
    /// # Errors
    /// As [`Self::seal`].
    pub fn seal_twice(
        to: &KeyConfiguration,
        sender: &SigningKey,
        inputs: Vec<Tensor>,
        created: Time,
    ) -> anyhow::Result<[Self; 2]> {
        let mut drawn = Drawn::default();
        let first = Self::seal_with(to, sender, inputs.clone(), created, &mut drawn)?;
        drawn.at = 0;
        let second = Self::seal_with(to, sender, inputs, created, &mut drawn)?;
        ensure!(first.bytes == second.bytes, "sealing draws otherwise now");
        Ok([first, second])
    }

    fn seal_with(
        to: &KeyConfiguration,
        sender: &SigningKey,
        inputs: Vec<Tensor>,
        created: Time,
        random: &mut impl CryptoRng,
    ) -> anyhow::Result<Self> {
        let outputs = Vec::new();
        let body = inference::Request { inputs, outputs }.encode();
        let mut id = [0; 16];
        random.fill_bytes(&mut id);
        let header = RequestHeader {
            audience: to.audience,
            key: to.key.id(),
            package: to.package,
            id,
            created,
        };
        let (bytes, opener) = seal_request(&to.key, &header, sender, &body, random)?;
        Ok(Self { bytes, opener })
    }

    /// Opens what came back: the answer, or the refusal that came sealed.
    ///
    /// # Errors
    /// It was not a sealed answer, or does not open as the answer to this request.
    pub fn open(self, answer: &Answer) -> anyhow::Result<Result<Inferred, Refusal>> {
        if answer.status != 200 {
            bail!("no sealed answer: {answer:?}");
        }
        let plain = self.opener.open(&answer.body)?;
        match inference::Reply::decode(&plain)? {
            inference::Reply::Answered(answer) => Ok(Ok(answer)),
            inference::Reply::Refused(refusal) => Ok(Err(refusal)),
            _ => bail!("an answer of an unknown kind"),
        }
    }
}

/// Randomness that can be drawn again, from where `at` is set to.
#[derive(Default)]
struct Drawn {
    bytes: Vec<u8>,
    at: usize,
}

impl TryRng for Drawn {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, into: &mut [u8]) -> Result<(), Infallible> {
        let end = self.at + into.len();
        if self.bytes.len() < end {
            let known = self.bytes.len();
            self.bytes.resize(end, 0);
            Randomness.fill_bytes(&mut self.bytes[known..]);
        }
        into.copy_from_slice(&self.bytes[self.at..end]);
        self.at = end;
        Ok(())
    }
}

impl TryCryptoRng for Drawn {}

/// Asks the attested key service for the key to seal with, outside the SDK.
///
/// # Errors
/// The session breaks, or the service refuses.
pub(crate) fn key_configuration(
    trust: &Trust,
    package: bield_envelope::Digest,
) -> anyhow::Result<KeyConfiguration> {
    let stream = TcpStream::connect(trust.key_service())?;
    let age_max = Duration::from_secs(600);
    let expect = Expect::attested(
        Role::KeyService,
        trust.roots().clone(),
        trust.policy().clone(),
        None,
        Freshness::Cached { age_max },
    );
    let provider = provider();
    let client = Local::Client(&provider);
    let mut session = connect(stream, client, &expect, now(), &mut Randomness)?;
    let code = CodeSelector::Measurement(trust.code()[0].clone());
    let question = Request::KeyConfiguration(PackageReference::Digest(package), code);
    session.send(&question.encode())?;
    match Reply::decode(&session.receive()?)? {
        Reply::KeyConfiguration(configuration) => Ok(configuration),
        Reply::Refused(refusal) => bail!("{refusal}"),
        _ => bail!("something else than a key configuration"),
    }
}

/// What a gateway answered.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// `Retry-After`, in seconds.
    pub retry_after: Option<u64>,
    /// The runtime's feedback that came beside it.
    pub feedback: serde_json::Value,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The refusal's short name; empty when it is none.
    pub fn code(&self) -> String {
        self.error("code")
    }

    /// The refusal's sentence; empty when it is none.
    pub fn message(&self) -> String {
        self.error("message")
    }

    fn error(&self, key: &str) -> String {
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        body["error"][key].as_str().unwrap_or_default().to_owned()
    }
}

/// Posts `body` to a gateway's `/v1/call`.
///
/// # Errors
/// Nobody answers.
pub fn post(gateway: &str, body: &[u8]) -> anyhow::Result<Answer> {
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    let agent = config.proxy(None).build().new_agent();
    let url = format!("{gateway}/v1/call");
    let answer = agent.post(&url).send(body).context(url)?;
    let (head, mut body) = answer.into_parts();
    let header = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
    let feedback = header("bield-feedback").unwrap_or("null");
    Ok(Answer {
        status: head.status.as_u16(),
        retry_after: header("retry-after").and_then(|secs| secs.parse().ok()),
        feedback: serde_json::from_str(feedback)?,
        body: body.with_config().limit(1 << 30).read_to_vec()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_drawn_is_drawn_again_and_what_follows_is_new() {
        let mut drawn = Drawn::default();
        let (mut first, mut again, mut more) = ([0; 40], [0; 40], [0; 40]);
        drawn.fill_bytes(&mut first);
        drawn.at = 0;
        drawn.fill_bytes(&mut again);
        drawn.fill_bytes(&mut more);
        assert_eq!(first, again);
        assert_ne!(first, more);
    }
}

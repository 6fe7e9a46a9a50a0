//! What is asked of a peer, and what counts as an answer.
//!
//! Always true: an answer is read within a limit and on time; a statement is used only when its
//! signature, nonce, capsule and page are right.

use std::time::Duration;

use bield_capsule::{
    CapsuleName, FORK_PROOF_BYTES_MAX, HeadsStatement, METADATA_BYTES_MAX, Metadata, Nonce,
    Received, WriterId,
};
use bield_envelope::{Signed, Verified};
use serde_json::Value;
use ureq::Agent;

use super::PeerAddress;
use crate::frames;

/// Longest time for one answer.
const WAIT: Duration = Duration::from_secs(15);

/// Longest list of capsules in bytes: 1000 lines of 200.
const LIST_BYTES_MAX: u64 = 1 << 20;

/// Longest page of records in bytes, one record longer than a page here.
const PAGE_BYTES_MAX: u64 = 10 << 20;

/// Longest statement of heads in bytes, signature included.
const HEADS_BYTES_MAX: u64 = (1 << 20) + 4096;

/// Most fork proofs that are read from a peer at once.
const FORKS_BYTES_MAX: u64 = 100 * FORK_PROOF_BYTES_MAX as u64;

/// Why a peer is of no use now.
#[derive(Debug, thiserror::Error)]
pub(super) enum PeerError {
    /// Nobody there, or not on time.
    #[error("no answer: {0}")]
    Unreachable(Box<ureq::Error>),
    /// It did not answer this on time; it may answer something else.
    #[error("no answer within {} s", WAIT.as_secs())]
    Slow,
    /// It refuses.
    #[error("refused with status {0}")]
    Refused(u16),
    /// It says what no replica may say.
    #[error("a lie: {0}")]
    Lied(String),
    /// Not the peer's fault: this store is busy or ends.
    #[error("this store: {0}")]
    Here(&'static str),
}

/// Another replica.
pub(super) struct PeerClient {
    address: PeerAddress,
    agent: Agent,
}

/// A line of a peer's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) name: CapsuleName,
    pub(super) records: u64,
    pub(super) forks: u64,
}

impl PeerClient {
    pub(super) fn new(address: PeerAddress) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .timeout_connect(Some(Duration::from_secs(3)))
            .timeout_global(Some(WAIT));
        Self {
            address,
            agent: config.build().into(),
        }
    }

    pub(super) fn url(&self) -> &str {
        &self.address.url
    }

    /// A page of its list, and whether there are more.
    pub(super) fn list(
        &self,
        after: Option<CapsuleName>,
    ) -> Result<(Vec<Listed>, bool), PeerError> {
        let after = after.map_or_else(String::new, |after| format!("?after={after}"));
        let body = self.get(&format!("/v1/capsules{after}"), LIST_BYTES_MAX)?;
        let said: Value = serde_json::from_slice(&body).map_err(lied)?;
        let lines = said["capsules"]
            .as_array()
            .ok_or_else(|| lied("a list without capsules"))?;
        let listed = lines.iter().map(|line| {
            let name = line["name"].as_str().and_then(|name| name.parse().ok());
            Ok(Listed {
                name: name.ok_or_else(|| lied("a capsule without a name"))?,
                records: line["records"].as_u64().unwrap_or_default(),
                forks: line["forks"].as_u64().unwrap_or_default(),
            })
        });
        let listed = listed.collect::<Result<Vec<_>, PeerError>>()?;
        let more = said["more"].as_bool().unwrap_or(false) && !listed.is_empty();
        Ok((listed, more))
    }

    pub(super) fn metadata(&self, name: &CapsuleName) -> Result<Metadata, PeerError> {
        let body = self.get(&format!("/v1/capsules/{name}"), METADATA_BYTES_MAX as u64)?;
        Metadata::decode_named(&body, name).map_err(lied)
    }

    pub(super) fn heads(
        &self,
        name: &CapsuleName,
        nonce: Nonce,
        after: Option<WriterId>,
    ) -> Result<Verified<HeadsStatement>, PeerError> {
        let start = after.map_or_else(String::new, |after| format!("&after={after}"));
        let path = format!(
            "/v1/capsules/{name}/heads?nonce={}{start}",
            hex::encode(nonce)
        );
        let body = self.get(&path, HEADS_BYTES_MAX)?;
        let signed = Signed::<HeadsStatement>::decode(&body).map_err(lied)?;
        let said = match &self.address.principal {
            Some(principal) => signed.verify(principal),
            None => signed.verify_claimed(),
        };
        let said = said.map_err(lied)?;
        if said.capsule != *name
            || said.nonce != nonce
            || said.after != after
            || !said.is_well_formed()
        {
            return Err(lied("heads of something else than was asked for"));
        }
        Ok(said)
    }

    /// Records `from` to `to` of one writer, as many as it gives; and how many bytes they took.
    pub(super) fn records(
        &self,
        name: &CapsuleName,
        writer: &WriterId,
        from: u64,
        to: u64,
    ) -> Result<(Vec<Received>, u64), PeerError> {
        let path = format!("/v1/capsules/{name}/records/{writer}?from={from}&to={to}");
        let body = self.get(&path, PAGE_BYTES_MAX)?;
        let mut records = Vec::new();
        for (item, seq) in frames::items(&body).zip(from..=to) {
            let record = Received::decode(item.map_err(lied)?.to_vec()).map_err(lied)?;
            let header = record.header();
            if header.capsule != *name || header.writer != *writer || header.seq != seq {
                return Err(lied("another record than was asked for"));
            }
            records.push(record);
        }
        Ok((records, body.len() as u64))
    }

    pub(super) fn forks(&self, name: &CapsuleName) -> Result<Vec<Vec<u8>>, PeerError> {
        let body = self.get(&format!("/v1/capsules/{name}/forks"), FORKS_BYTES_MAX)?;
        let items = frames::items(&body).map(|item| item.map(<[u8]>::to_vec));
        items.collect::<Result<_, _>>().map_err(lied)
    }

    pub(super) fn add_fork(&self, name: &CapsuleName, proof: &[u8]) -> Result<(), PeerError> {
        let url = format!("{}/v1/capsules/{name}/forks", self.address.url);
        let answer = self.agent.post(url).send(proof).map_err(unreachable)?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            status => Err(PeerError::Refused(status.as_u16())),
        }
    }

    fn get(&self, path: &str, bytes_max: u64) -> Result<Vec<u8>, PeerError> {
        let url = format!("{}{path}", self.address.url);
        let mut answer = self.agent.get(url).call().map_err(unreachable)?;
        if !answer.status().is_success() {
            return Err(PeerError::Refused(answer.status().as_u16()));
        }
        let body = answer.body_mut().with_config().limit(bytes_max);
        body.read_to_vec().map_err(|error| match error {
            ureq::Error::BodyExceedsLimit(max) => {
                lied(format!("an answer longer than {max} bytes"))
            }
            error => unreachable(error),
        })
    }
}

pub(super) fn lied(what: impl ToString) -> PeerError {
    PeerError::Lied(what.to_string())
}

fn unreachable(error: ureq::Error) -> PeerError {
    match error {
        ureq::Error::Timeout(_) => PeerError::Slow,
        error => PeerError::Unreachable(Box::new(error)),
    }
}

//! What this client trusts, read from one TOML file before anything is sent.
//!
//! ```toml
//! gateway     = "http://127.0.0.1:8790"   # untrusted: carries sealed bytes
//! key_service = "127.0.0.1:8791"          # trusted once its evidence meets [service]; a list is tried in turn
//! code        = ["sgx:…64 hex digits…"]   # runtimes that may open my requests
//! owner       = "ed25519:…"               # whose packages a bare name means (optional)
//! principal   = "ed25519:…"               # the one key service I accept (optional)
//! signers     = ["sgx-signer:…,svn>=3"]   # or: runtimes that these signed may open them (optional)
//!
//! [service]                               # what the key service's evidence must satisfy
//! profile      = "cloud"                  # strict, cloud, or dev
//! measurements = ["sgx:…"]
//!
//! [runtimes]                              # what the runtimes' processes must have given up (optional)
//! hardening = ["listed-system-calls", "locked-regions"]
//!
//! [witnesses]                             # who must have cosigned its log's head (optional)
//! keys   = ["example.net/w+1a2b3c4d+…"]   # C2SP verifier keys
//! needed = 1
//! ```
//!
//! A list `hardening` in `[service]` counts for runtimes, too, unless `[runtimes]` has one of its own.
//!
//! Always true: a [`Trust`] that exists is complete and consistent; unknown keys are refused, so a
//! misspelt demand never becomes no demand; no protection is asked of a program that never states it.

use std::collections::BTreeSet;
use std::str::FromStr;

use bield_envelope::Principal;
use bield_evidence::{
    HardeningDemand, Measurement, Policy, PolicyConfig, PolicyConfigError, Protection, Roots,
};
use bield_grant::CodeSelector;
use bield_tlog::{Quorum, QuorumError};
use serde::{Deserialize, Serialize};

use crate::KnownService;

/// The text form of a [`Trust`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustConfig {
    /// Where sealed requests go: an `http://` URL.
    pub gateway: String,
    /// `host:port` of the key service, or of each of its members.
    pub key_service: Addresses,
    /// Runtime code that may open this client's requests; a named package is tried in this order.
    #[serde(default)]
    pub code: Vec<Measurement>,
    /// Runtime code that may open this client's requests because of who signed it, from which security
    /// version on: `sgx-signer:…,product=1,svn>=3`. Tried after `code`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signers: Vec<String>,
    /// Whose packages a bare name means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The one key service accepted, beside what its evidence says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// What the key service's evidence must satisfy.
    pub service: PolicyConfig,
    /// What the runtimes' certificates must state, when that is not what `service` asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtimes: Option<RuntimesConfig>,
    /// Who must have cosigned the head of the key service's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witnesses: Option<WitnessesConfig>,
}

/// What is asked of runtimes, beside their code.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuntimesConfig {
    /// Protections of the process that must be stated in force, of every kind of TEE: exactly these.
    pub hardening: Vec<Protection>,
}

/// One address, or several of one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Addresses {
    /// `host:port`.
    One(String),
    /// Each `host:port`, tried in this order; at most [`ADDRESSES_MAX`].
    Several(Vec<String>),
}

impl From<String> for Addresses {
    fn from(address: String) -> Self {
        Self::One(address)
    }
}

/// Witnesses of the key service's log.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessesConfig {
    /// Their verifier keys (C2SP): `name+hash+key`.
    pub keys: Vec<String>,
    /// How many of them must have cosigned, at least 1.
    pub needed: usize,
}

/// Why a trust file is not usable. Whoever wrote the file corrects it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// Not TOML, or a key is missing, unknown or of the wrong type.
    #[error("the trust file does not parse: {0}")]
    Parse(#[from] toml::de::Error),
    /// A principal is not one.
    #[error("the trust file's `{key}` is no principal: write ed25519: and 64 hex digits")]
    Principal {
        /// Which key of the file.
        key: &'static str,
    },
    /// The gateway's URL cannot be used.
    #[error("the trust file's `gateway` is not an http:// URL: found {found:?}")]
    Gateway {
        /// What stands there.
        found: String,
    },
    /// The key service's address cannot be used.
    #[error("the trust file's `key_service` is not host:port: found {found:?}")]
    Address {
        /// What stands there.
        found: String,
    },
    /// No address, too many, or one twice.
    #[error(
        "the trust file's `key_service` names {found} addresses: write 1 to {ADDRESSES_MAX}, each once"
    )]
    Addresses {
        /// How many stand there.
        found: usize,
    },
    /// A signer of code is not one.
    #[error("the trust file's `signers`: {found:?} is no signer: write sgx-signer:<hex>,svn>=N")]
    Signer {
        /// What stands there.
        found: String,
    },
    /// A witness's key is not one.
    #[error("the trust file's [witnesses]: {found:?}: {error}")]
    Witness {
        /// What stands there.
        found: String,
        /// What is wrong with it.
        #[source]
        error: bield_tlog::note::KeyError,
    },
    /// The witnesses cannot be counted on.
    #[error("the trust file's [witnesses]: {0}")]
    Witnesses(#[from] QuorumError),
    /// Witnesses of whom none is needed.
    #[error("the trust file's [witnesses]: `needed` is 0, so none would count; write 1 or more")]
    NoneNeeded,
    /// A protection is asked of a program that never states it.
    #[error("the trust file's [{table}]: `hardening` asks for {}, {why}", protection.name())]
    Hardening {
        /// Where it stands.
        table: &'static str,
        /// What is asked for.
        protection: Protection,
        /// Who states it, and where to ask for it.
        why: &'static str,
    },
    /// The policy for the key service's evidence contradicts itself.
    #[error("the trust file's [service]: {0}")]
    Policy(#[from] PolicyConfigError),
}

/// Everything this client trusts.
pub struct Trust {
    gateway: String,
    key_services: Vec<String>,
    code: Vec<Measurement>,
    signers: Vec<CodeSelector>,
    witnesses: Option<Quorum>,
    owner: Option<Principal>,
    principal: Option<Principal>,
    services: Vec<String>,
    simulated_roots: Vec<String>,
    policy: Policy,
    runtime_hardening: HardeningDemand,
    roots: Roots,
}

impl Trust {
    /// Checks the text and makes the trust.
    ///
    /// # Errors
    /// The first thing that cannot be used as it is.
    pub fn parse(text: &str) -> Result<Self, TrustError> {
        toml::from_str::<TrustConfig>(text)?.into_trust()
    }

    /// Where sealed requests go.
    #[must_use]
    pub fn gateway(&self) -> &str {
        &self.gateway
    }

    /// `host:port` of the key service; the first when there are several.
    #[must_use]
    pub fn key_service(&self) -> &str {
        self.key_services.first().map_or("", String::as_str)
    }

    /// `host:port` of each member of the key service, in the order in which they are tried; at least one.
    #[must_use]
    pub fn key_services(&self) -> &[String] {
        &self.key_services
    }

    /// Who must have cosigned the head of the key service's log; `None` when nobody need.
    #[must_use]
    pub const fn witnesses(&self) -> Option<&Quorum> {
        self.witnesses.as_ref()
    }

    /// Runtime code that may open this client's requests.
    #[must_use]
    pub fn code(&self) -> &[Measurement] {
        &self.code
    }

    /// Signers whose code may open this client's requests; tried after [`code`](Self::code).
    #[must_use]
    pub fn signers(&self) -> &[CodeSelector] {
        &self.signers
    }

    /// Whether code may be asked for: it stands on one of the two lists.
    #[must_use]
    pub fn lists(&self, code: &CodeSelector) -> bool {
        match code {
            CodeSelector::Measurement(measurement) => self.code.contains(measurement),
            CodeSelector::Signed(_) => self.signers.contains(code),
        }
    }

    /// Whose packages a bare name means.
    #[must_use]
    pub const fn owner(&self) -> Option<Principal> {
        self.owner
    }

    /// The one key service accepted; `None` accepts whichever meets [`policy`](Self::policy).
    #[must_use]
    pub const fn principal(&self) -> Option<Principal> {
        self.principal
    }

    /// What the key service's evidence must satisfy.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Which protections a runtime's certificate must state in force.
    #[must_use]
    pub const fn runtime_hardening(&self) -> &HardeningDemand {
        &self.runtime_hardening
    }

    /// Who may have signed the key service's evidence.
    #[must_use]
    pub const fn roots(&self) -> &Roots {
        &self.roots
    }

    /// Whether a key service verified before, perhaps under other trust, is one that this trust accepts:
    /// its code, its protection, and who it is. The rest of the policy was checked when it was verified.
    #[must_use]
    pub fn accepts(&self, service: &KnownService) -> bool {
        self.services.contains(&service.measurement)
            && (self.allows_simulated() || !service.simulated)
            && self
                .principal
                .is_none_or(|principal| principal == service.principal)
    }

    /// Whether this trust names the service that `before` named, by its principal or else by its code and
    /// who vouches for it: the same, or more.
    #[must_use]
    pub(crate) fn names_the_service_of(&self, before: &Self) -> bool {
        if let (Some(now), Some(then)) = (self.principal, before.principal) {
            return now == then;
        }
        let meet = |now: &[String], then: &[String]| {
            now == then || now.iter().any(|one| then.contains(one))
        };
        meet(&self.services, &before.services)
            && meet(&self.simulated_roots, &before.simulated_roots)
    }

    /// Whether a software TEE, which protects nothing, is acceptable.
    #[must_use]
    pub const fn allows_simulated(&self) -> bool {
        self.policy.allows_simulated()
    }
}

impl TrustConfig {
    /// Checks the values and makes the trust.
    ///
    /// # Errors
    /// As [`Trust::parse`].
    pub fn into_trust(self) -> Result<Trust, TrustError> {
        let host = self.gateway.strip_prefix("http://").unwrap_or_default();
        let usable = !host.is_empty() && !host.contains([' ', '?', '#', '@']);
        if !usable {
            return Err(TrustError::Gateway {
                found: self.gateway,
            });
        }
        let key_services = addresses(self.key_service)?;
        let signers = self.signers.iter().map(|text| signer(text));
        let signers = signers.collect::<Result<_, _>>()?;
        let own = self.runtimes.map(|runtimes| runtimes.hardening);
        check_hardening(self.service.hardening.as_deref(), own.as_deref())?;
        let roots = self.service.roots()?;
        // As the list of remembered services writes them; what does not parse, into_policy refuses.
        let measurements = self.service.measurements.iter();
        let services = measurements
            .filter_map(|text| Some(text.parse::<Measurement>().ok()?.to_string()))
            .collect();
        let simulated_roots = self.service.simulated_roots.clone();
        let policy = self.service.into_policy()?;
        Ok(Trust {
            gateway: self.gateway.trim_end_matches('/').to_owned(),
            key_services,
            code: self.code,
            signers,
            witnesses: self.witnesses.map(quorum).transpose()?,
            owner: principal(self.owner, "owner")?,
            principal: principal(self.principal, "principal")?,
            services,
            simulated_roots,
            runtime_hardening: match own {
                Some(own) => HardeningDemand::exactly(own),
                None => policy.hardening().clone(),
            },
            policy,
            roots,
        })
    }
}

/// Refuses what could never be met: asked of a key service or of runtimes, which without a list of their own are asked for
/// what the key service is.
fn check_hardening(
    service: Option<&[Protection]>,
    runtimes: Option<&[Protection]>,
) -> Result<(), TrustError> {
    let refuse = |table, asked: Option<&[Protection]>, stated: &[Protection], why| {
        let mut asked = asked.unwrap_or_default().iter();
        match asked.find(|one| !stated.contains(one)) {
            Some(&protection) => Err(TrustError::Hardening {
                table,
                protection,
                why,
            }),
            None => Ok(()),
        }
    };
    refuse(
        "service",
        service,
        &Protection::KEY_SERVICE,
        "which a key service never states; runtimes do: ask for it in [runtimes]",
    )?;
    match runtimes {
        Some(_) => refuse(
            "runtimes",
            runtimes,
            &Protection::RUNTIME,
            "which runtimes never state; a key service does: ask for it in [service]",
        ),
        None => refuse(
            "service",
            service,
            &Protection::RUNTIME,
            "which runtimes never state, and without a list of their own they are asked for it as well: add [runtimes] with \
             `hardening`",
        ),
    }
}

fn addresses(addresses: Addresses) -> Result<Vec<String>, TrustError> {
    let addresses = match addresses {
        Addresses::One(address) => vec![address],
        Addresses::Several(addresses) => addresses,
    };
    for address in &addresses {
        let port = address.rsplit_once(':');
        if port.is_none_or(|(host, port)| host.is_empty() || u16::from_str(port).is_err()) {
            return Err(TrustError::Address {
                found: address.clone(),
            });
        }
    }
    let found = addresses.len();
    let distinct = addresses.iter().collect::<BTreeSet<_>>().len();
    if distinct != found || !(1..=ADDRESSES_MAX).contains(&found) {
        return Err(TrustError::Addresses { found });
    }
    Ok(addresses)
}

fn signer(text: &str) -> Result<CodeSelector, TrustError> {
    let refuse = || TrustError::Signer {
        found: text.to_owned(),
    };
    match text.parse() {
        Ok(selector @ CodeSelector::Signed(_)) => Ok(selector),
        _ => Err(refuse()),
    }
}

fn quorum(config: WitnessesConfig) -> Result<Quorum, TrustError> {
    if config.needed == 0 {
        return Err(TrustError::NoneNeeded);
    }
    let keys = config.keys.into_iter().map(|found| {
        found
            .parse()
            .map_err(|error| TrustError::Witness { found, error })
    });
    Ok(Quorum::new(keys.collect::<Result<_, _>>()?, config.needed)?)
}

fn principal(text: Option<String>, key: &'static str) -> Result<Option<Principal>, TrustError> {
    let parse = |text: String| text.parse().map_err(|_| TrustError::Principal { key });
    text.map(parse).transpose()
}

/// Most addresses of one key service: 5 members, and room for names that stay while members change.
pub const ADDRESSES_MAX: usize = 16;

#[cfg(test)]
mod tests;

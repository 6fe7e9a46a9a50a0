//! One change after the other: the rules of `spec/06 §5`, and what contradicts them.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bield_envelope::Principal;

use super::{
    ADMITTED_MAX, CERTIFIERS_MAX, CONFIG_GENERATIONS_MAX, Change, Config, ConfigError,
    FORMER_CERTIFIERS_MAX, Former, Generation, KEPT_WRITERS_MAX, Last, Quorum, REPLICAS_MAX,
    REVOKED_MAX, TEXT_BYTES_MAX, WITNESSES_MAX,
};
use crate::{CODE_BYTES_MAX, PublicKey, WriterId};

impl Config {
    pub(super) fn change(&mut self, step: Step, change: &Change) -> Result<(), ConfigError> {
        match change {
            Change::Certify(principal) => self.certify(step, principal),
            Change::Uncertify { principal, keep } => self.uncertify(step, principal, keep),
            Change::Codes { principal, codes } => self.restrict(step, principal, codes),
            Change::Admit(key) => self.admit(step, key),
            Change::Revoke { writer, last } => self.revoke(step, writer, *last),
            Change::Generation { number, commitment } => {
                if self.generations.len() >= CONFIG_GENERATIONS_MAX {
                    return Err(step.full("generations", CONFIG_GENERATIONS_MAX));
                }
                step.agrees(*number == self.generation() + 1, "generation out of order")?;
                let from = self.records.len() as u64;
                Arc::make_mut(&mut self.generations).push(Generation {
                    from,
                    commitment: *commitment,
                    erased: false,
                });
                Ok(())
            }
            Change::Erase(number) => {
                let known = self.row(*number).is_some_and(|row| !row.erased);
                step.agrees(known, "no such generation, or erased before")?;
                Arc::make_mut(&mut self.generations)[*number as usize - 1].erased = true;
                Ok(())
            }
            Change::Replica { principal, address } => {
                step.rule(address.len() <= TEXT_BYTES_MAX, "address is too long")?;
                if self.replicas.len() >= REPLICAS_MAX {
                    return Err(step.full("replicas", REPLICAS_MAX));
                }
                let replicas = Arc::make_mut(&mut self.replicas);
                let new = replicas.insert(*principal, address.clone()).is_none();
                step.agrees(new, "a replica already")
            }
            Change::Unreplica(principal) => {
                let known = Arc::make_mut(&mut self.replicas).remove(principal);
                step.agrees(known.is_some(), "no such replica")
            }
            Change::Quorum {
                replicas,
                witnesses,
            } => {
                step.rule(*replicas >= 1, "a quorum has at least one replica")?;
                self.quorum = Quorum {
                    replicas: *replicas,
                    witnesses: *witnesses,
                };
                Ok(())
            }
            Change::Witness(key) => {
                let name = witness_name(key);
                let name = name.ok_or(step.broken("not a verifier key"))?;
                if self.witnesses.len() >= WITNESSES_MAX {
                    return Err(step.full("witnesses", WITNESSES_MAX));
                }
                // Two names for one key would count one witness twice.
                let mut others = self.witnesses.values();
                let alone = !others.any(|other| material(other) == material(key));
                step.agrees(alone, "a witness with this key already")?;
                let new = Arc::make_mut(&mut self.witnesses).insert(name.to_owned(), key.clone());
                step.agrees(new.is_none(), "a witness of this name already")
            }
            Change::Unwitness(name) => {
                let known = Arc::make_mut(&mut self.witnesses).remove(name);
                step.agrees(known.is_some(), "no such witness")
            }
            Change::Quota(bytes) => {
                self.quota = Some(*bytes);
                Ok(())
            }
        }
    }

    fn certify(&mut self, step: Step, principal: &Principal) -> Result<(), ConfigError> {
        // What was taken away stays away: a certifier that returns would bring back writers that
        // verifiers have refused.
        let former = self.former.contains_key(principal);
        step.agrees(!former, "certified before; use a new key")?;
        if self.certifiers.len() >= CERTIFIERS_MAX {
            return Err(step.full("certifiers", CERTIFIERS_MAX));
        }
        let certifiers = Arc::make_mut(&mut self.certifiers);
        let new = certifiers.insert(*principal, None).is_none();
        step.agrees(new, "certified already")
    }

    fn uncertify(
        &mut self,
        step: Step,
        principal: &Principal,
        keep: &[WriterId],
    ) -> Result<(), ConfigError> {
        step.rule(
            keep.is_sorted_by(|a, b| a < b),
            "kept writers ascend, each once",
        )?;
        let Some(codes) = Arc::make_mut(&mut self.certifiers).remove(principal) else {
            return Err(step.contradiction("no such certifier"));
        };
        if self.former.len() >= FORMER_CERTIFIERS_MAX {
            return Err(step.full("former certifiers", FORMER_CERTIFIERS_MAX));
        }
        self.kept += keep.len();
        if self.kept > KEPT_WRITERS_MAX {
            return Err(step.full("kept writers", KEPT_WRITERS_MAX));
        }
        let keep = keep.iter().copied().collect();
        let former = Arc::new(Former { codes, keep });
        Arc::make_mut(&mut self.former).insert(*principal, former);
        Ok(())
    }

    fn restrict(
        &mut self,
        step: Step,
        principal: &Principal,
        codes: &[Vec<u8>],
    ) -> Result<(), ConfigError> {
        step.rule(
            !codes.is_empty()
                && codes.iter().all(|code| code.len() <= CODE_BYTES_MAX)
                && codes.is_sorted_by(|a, b| a < b),
            "1 to 64 codes of at most 128 bytes ascend, each once",
        )?;
        let Some(of) = Arc::make_mut(&mut self.certifiers).get_mut(principal) else {
            return Err(step.contradiction("no such certifier"));
        };
        *of = Some(codes.iter().cloned().collect());
        Ok(())
    }

    fn admit(&mut self, step: Step, key: &[u8]) -> Result<(), ConfigError> {
        let key = PublicKey::from_bytes(self.suite, key);
        let writer = key.ok_or(step.broken("not a key of the suite"))?.id();
        step.agrees(
            writer != self.owner,
            "the owner configures, and nothing else",
        )?;
        step.agrees(!self.revoked.contains_key(&writer), "a revoked writer")?;
        if self.admitted.len() >= ADMITTED_MAX {
            return Err(step.full("admitted writers", ADMITTED_MAX));
        }
        let known = self.admitted.contains(&writer);
        step.agrees(!known, "admitted already")?;
        Arc::make_mut(&mut self.admitted).insert(writer);
        Ok(())
    }

    fn revoke(
        &mut self,
        step: Step,
        writer: &WriterId,
        last: Option<Last>,
    ) -> Result<(), ConfigError> {
        step.agrees(*writer != self.owner, "the owner cannot be revoked")?;
        // `None`, nothing stays, is stricter than any `Some`, and that is how options compare.
        let seq = |last: Option<Last>| last.map(|last| last.seq);
        let before = self.revoked.get(writer).copied();
        let stricter = before.is_none_or(|before| seq(last) < seq(before));
        step.agrees(stricter, "revoked already, no less strictly")?;
        if self.revoked.len() >= REVOKED_MAX && !self.revoked.contains_key(writer) {
            return Err(step.full("revoked writers", REVOKED_MAX));
        }
        Arc::make_mut(&mut self.revoked).insert(*writer, last);
        Ok(())
    }
}

/// The name in the C2SP verifier key of a witness, `name+id+base64(0x04 ‖ key)`, where `id` is the first four
/// bytes of `SHA-256(name ‖ "\n" ‖ 0x04 ‖ key)`; `None` when the text is anything else.
fn witness_name(text: &str) -> Option<&str> {
    let mut parts = text.splitn(3, '+');
    let (name, id, key) = (parts.next()?, parts.next()?, parts.next()?);
    let forbidden = |c: char| c.is_whitespace() || c < '\u{20}';
    let key = BASE64.decode(key).ok()?;
    let form = key.len() == 33 && key[0] == COSIGNATURE && text.len() <= TEXT_BYTES_MAX;
    let hash = digest(&SHA256, &[name.as_bytes(), b"\n", &key].concat());
    let written: String = hash.as_ref()[..4]
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    (form && !name.is_empty() && !name.contains(forbidden) && id == written).then_some(name)
}

/// What is behind name and id in a verifier key: the key itself, in its one spelling.
fn material(text: &str) -> Option<&str> {
    text.splitn(3, '+').nth(2)
}

/// C2SP's type of a witness's key: `cosignature/v1`.
const COSIGNATURE: u8 = 4;

/// Which change is being made; makes the errors.
#[derive(Clone, Copy)]
pub(super) struct Step {
    pub(super) index: usize,
}

impl Step {
    fn rule(self, holds: bool, rule: &'static str) -> Result<(), ConfigError> {
        if holds {
            Ok(())
        } else {
            Err(self.broken(rule))
        }
    }

    fn agrees(self, holds: bool, what: &'static str) -> Result<(), ConfigError> {
        if holds {
            Ok(())
        } else {
            Err(self.contradiction(what))
        }
    }

    const fn broken(self, rule: &'static str) -> ConfigError {
        let index = self.index;
        ConfigError::Rule { index, rule }
    }

    const fn contradiction(self, what: &'static str) -> ConfigError {
        let index = self.index;
        ConfigError::Contradiction { index, what }
    }

    pub(super) const fn full(self, what: &'static str, max: usize) -> ConfigError {
        let index = self.index;
        ConfigError::Full { index, what, max }
    }
}

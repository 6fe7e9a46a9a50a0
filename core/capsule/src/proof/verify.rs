//! From the capsule's name to the record, part by part (`spec/06 §7`).
//!
//! Always true: each step uses only what an earlier one established.

use super::proven::not_checked;
use super::{Acknowledged, AcknowledgementError, Authority, Proof, ProofError, Proven};
use crate::{
    CapsuleName, Config, Header, Kind, MetadataError, PublicKey, Received, Verifier,
    VerifierPolicy, verify_path,
};

impl Proof {
    /// Checks everything, from the capsule's name alone.
    ///
    /// # Errors
    /// The part that does not hold.
    pub fn verify(&self, name: &CapsuleName, policy: VerifierPolicy) -> Result<Proven, ProofError> {
        let found = self.metadata.name();
        if found != *name {
            let expected = *name;
            return Err(MetadataError::OtherName { expected, found }.into());
        }
        let mut verifier = Verifier::new(self.metadata.clone(), policy);
        for (number, record) in self.config.iter().enumerate() {
            let why = |why| ProofError::Config { number, why };
            if record.header().kind != Kind::Config {
                return Err(ProofError::Rule("a config record is of another kind"));
            }
            let verified = verifier.verify(record.clone()).map_err(why)?;
            verifier.apply(verified).map_err(why)?;
        }
        let head = self.head.header();
        let (authority, key) = self.authority(&mut verifier)?;
        self.head.verify(&key).map_err(|_| ProofError::Signature)?;
        let config = verifier.config();
        let target = self.target();
        verify_path(head, &self.path)?;
        self.check_chain(config)?;
        for header in [head, target] {
            self.check_rights(&authority, config, header)?;
        }
        let entry = self
            .entry
            .as_ref()
            .map(|entry| entry.open(target))
            .transpose()?;
        Ok(Proven {
            capsule: *name,
            config: config
                .head()
                .ok_or(ProofError::Rule("it has no config record"))?,
            head: self.head.head(),
            target: target.clone(),
            target_hash: target.hash(),
            acknowledged: self.acknowledged_by(config)?,
            quorum: config.quorum(),
            not_checked: not_checked(target, &authority, entry.as_ref()),
            authority,
            entry,
        })
    }

    /// The head's writer: why it may write, and its key.
    fn authority(&self, verifier: &mut Verifier) -> Result<(Authority, PublicKey), ProofError> {
        let writer = self.head.header().writer;
        let Some(opening) = &self.opening else {
            if writer != self.metadata.owner_id() {
                return Err(ProofError::Rule("the writer's open record is missing"));
            }
            return Ok((Authority::Owner, self.metadata.owner().clone()));
        };
        if opening.header().kind != Kind::Open || opening.header().writer != writer {
            return Err(ProofError::Rule(
                "the open record is not the head's writer's",
            ));
        }
        let verified = verifier
            .verify(opening.clone())
            .map_err(ProofError::Opening)?;
        verifier.apply(verified).map_err(ProofError::Opening)?;
        let chain = verifier
            .chain(&writer)
            .ok_or(ProofError::Rule("the open record opens no chain"))?;
        let authority = match chain.certificate() {
            Some(said) if !verifier.config().admits(&writer) => Authority::Certified {
                by: said.signer(),
                code: said.code.clone(),
                simulated: said.simulated,
                not_before: said.not_before,
                not_after: said.not_after,
            },
            _ => Authority::Admitted,
        };
        // spec/06 §5: a head beyond a revocation proves nothing about what lies before it
        let head = self.head.head();
        let through = chain.through(verifier.config());
        if !through.includes(head.seq) || !verifier.config().includes(&head) {
            return Err(ProofError::Revoked);
        }
        Ok((authority, chain.key().clone()))
    }

    /// What the headers of one chain owe each other and the first record (`spec/06 §3`).
    fn check_chain(&self, config: &Config) -> Result<(), ProofError> {
        let rule = |holds: bool, rule| holds.then_some(()).ok_or(ProofError::Rule(rule));
        let head = self.head.header();
        rule(
            head.capsule == self.metadata.name() && head.suite == self.metadata.suite(),
            "the head is of another capsule",
        )?;
        let newest = config.head().map(|head| head.seq);
        rule(
            newest.is_some_and(|newest| head.config <= newest),
            "config records that the head names are missing",
        )?;
        let owned = config.is_owner(&head.writer);
        let mut above = head;
        for header in core::iter::once(head).chain(&self.path) {
            rule(
                header.clock <= above.clock
                    && header.epoch <= above.epoch
                    && header.config <= above.config,
                "clock, epoch or config runs backwards",
            )?;
            rule(
                owned == (header.kind == Kind::Config),
                "a record is in the wrong chain",
            )?;
            let close_within = header.kind == Kind::Close && header.seq != head.seq;
            rule(!close_within, "records follow a close")?;
            above = header;
        }
        if let Some(opening) = self.opening.as_ref().map(Received::header) {
            let target = self.target();
            rule(
                opening.clock <= target.clock
                    && opening.epoch <= target.epoch
                    && opening.config <= target.config,
                "clock, epoch or config is below the opening's",
            )?;
        }
        for header in [head, self.target()] {
            let known = match &self.opening {
                // The verifier compared the config chain with its predecessors already.
                None => config.hash_at(header.seq),
                Some(opening) => (header.seq == 0).then(|| opening.hash()),
            };
            rule(
                known.is_none_or(|known| known == header.hash()),
                "a record contradicts one that the proof itself holds",
            )?;
        }
        Ok(())
    }

    /// Whether the writer had the right to write a record with this header.
    fn check_rights(
        &self,
        authority: &Authority,
        config: &Config,
        header: &Header,
    ) -> Result<(), ProofError> {
        if let Authority::Certified {
            not_before,
            not_after,
            ..
        } = authority
        {
            let time = header.clock.time();
            if time < *not_before || time >= *not_after {
                return Err(ProofError::Window);
            }
        }
        if header.kind == Kind::Data && header.generation != config.generation_at(header.config) {
            return Err(ProofError::Rule(
                "a record is sealed under another generation",
            ));
        }
        Ok(())
    }

    fn acknowledged_by(&self, config: &Config) -> Result<Vec<Acknowledged>, ProofError> {
        let mut counted: Vec<Acknowledged> = Vec::with_capacity(self.acknowledgements.len());
        for (number, word) in self.acknowledgements.iter().enumerate() {
            let refuse = |why| Err(ProofError::Acknowledgement { number, why });
            let said = match word.clone().verify_claimed() {
                Ok(said) => said,
                Err(why) => return refuse(why.into()),
            };
            if said.capsule != self.metadata.name() || said.head() != self.head.head() {
                return refuse(AcknowledgementError::OtherHead);
            }
            if !config.is_replica(&said.signer()) {
                return refuse(AcknowledgementError::NotReplica);
            }
            if counted
                .last()
                .is_some_and(|last| last.replica >= said.signer())
            {
                return refuse(AcknowledgementError::Repeated);
            }
            counted.push(Acknowledged {
                replica: said.signer(),
                kept: said.kept,
                at: said.at,
            });
        }
        Ok(counted)
    }
}

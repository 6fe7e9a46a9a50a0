//! Who may open what: leases, key configurations, admissions.

use super::*;

impl Play {
    /// Compares a few decisions, after each step.
    pub(super) fn look(&mut self) {
        if self.open.is_some() {
            return;
        }
        for _ in 0..3 {
            let (package, code) = (self.some_package(), self.random.one_of(&CODES));
            self.find(package, code);
        }
        let (package, code) = (self.some_package(), self.random.one_of(&CODES));
        self.lease(package, code);
    }

    /// Compares every decision.
    pub(super) fn look_at_all(&mut self) {
        for package in self.packages.clone() {
            for code in CODES {
                if self.open.is_none() {
                    self.find(package, code);
                    self.lease(package, code);
                }
            }
        }
    }

    /// A user asks what to seal to.
    pub(super) fn find(&mut self, package: Digest, code: u8) {
        let found = self.world.find(package, cast::exactly(code));
        let (host, generation) = (
            self.world.now(),
            found.as_ref().ok().map(|it| it.generation),
        );
        self.agree("a key configuration", |model| {
            model.found(package, code, host) == generation
        });
        let Ok(found) = found else { return };
        assert_eq!(found.code.measurement, cast::code(code));
        let known = |told: &Told| {
            (told.package, told.code, told.generation) == (package, code, found.generation)
        };
        if self.models.len() == 1 && !self.told.iter().any(known) {
            self.told.push(Told {
                package,
                code,
                generation: found.generation,
                audience: found.audience,
                key: found.key,
            });
        }
    }

    /// A runtime asks for keys; sometimes it returns what it has of an earlier lease.
    pub(super) fn lease(&mut self, package: Digest, code: u8) {
        let earlier = self.random.below(8);
        let fits = |kept: &Kept| kept.code == code;
        let earlier = self
            .leases
            .get(earlier)
            .is_some_and(fits)
            .then_some(earlier);
        let earlier = earlier.map(|at| self.leases.remove(at));
        let returned = earlier.map(|kept| self.unused(&kept));
        let mut session = cast::runtime(code);
        let leased = self.world.lease_in(&mut session, package, returned.clone());
        self.note(format!(
            "lease {package:?} {code} -> {:?}",
            leased.as_ref().map(|it| it.lease.id)
        ));
        count(&mut self.seen.leased, leased.is_ok());
        let host = self.world.now();
        let back = |model: &mut Model| {
            if let Some(returned) = &returned {
                let unused: Vec<_> = returned
                    .unused
                    .iter()
                    .map(|it| (it.grant, it.requests))
                    .collect();
                model.take_back(returned.lease, code, &unused, host);
            }
        };
        let leased = match leased {
            Ok(leased) => leased,
            Err(refused) => {
                return self.heard(&Err(refused), |model| {
                    back(model);
                    model.lease(package, code, host).is_some()
                });
            }
        };
        let shown = shown(&leased);
        self.heard(&Ok(()), |model| {
            back(model);
            model.lease(package, code, host).as_ref() == Some(&shown)
        });
        assert_eq!(leased.lease.code.measurement, cast::code(code));
        let material = Material::new(leased);
        let [model] = &self.models[..] else { return };
        let kept = Kept {
            material,
            model: model.clone(),
            package,
            code,
        };
        let now = kept.material.issued;
        let user = self.some_user();
        self.serve(&kept, now, &[user, USERS[0]]);
        if self.leases.len() == 8 {
            self.leases.remove(0);
        }
        self.leases.push(kept);
    }

    /// Part of what a lease was allotted.
    pub(super) fn unused(&mut self, kept: &Kept) -> Returned {
        let part = |it: &Allotment, random: &mut Random| Allotment {
            requests: random.below(it.requests as usize + 2) as u64,
            ..*it
        };
        let unused = kept.material.allotments.iter();
        Returned {
            lease: kept.material.lease.id,
            unused: unused.map(|it| part(it, &mut self.random)).collect(),
        }
    }

    /// A runtime returns what it did not use, once or twice.
    pub(super) fn take_back(&mut self) {
        let at = self.random.below(8);
        let Some(kept) = self.leases.get(at) else {
            return;
        };
        let (code, id) = (kept.code, kept.material.lease.id);
        let kept = self.leases.remove(at);
        let returned = self.unused(&kept);
        let unused: Vec<_> = returned
            .unused
            .iter()
            .map(|it| (it.grant, it.requests))
            .collect();
        for from in [code, if code == 5 { 6 } else { 5 }, code] {
            let answer = self
                .world
                .say(&mut cast::runtime(from), Request::Return(returned.clone()));
            let (answer, host) = (answer.map(drop), self.world.now());
            self.note(format!(
                "lease {id} back from {from}: {unused:?} -> {answer:?}"
            ));
            self.heard(&answer, |model| {
                model.take_back(id, from, &unused, host);
                true
            });
        }
    }

    pub(super) fn serve_under_an_old_lease(&mut self) {
        let at = self.random.below(8);
        if at >= self.leases.len() {
            return;
        }
        let kept = self.leases.remove(at);
        let now = self.world.now().max(kept.material.issued);
        let keys = self.keys.clone();
        self.serve(&kept, now, &keys);
        self.leases.insert(at, kept);
    }

    /// Compares who is served under a lease with its model.
    pub(super) fn serve(&mut self, kept: &Kept, now: Time, users: &[u8]) {
        let allotted: Vec<Digest> = kept.material.allotments.iter().map(|it| it.grant).collect();
        for told in self.told.iter().filter(|told| told.package == kept.package) {
            for user in users {
                let sealed = seal(&told.key, told.audience, told.package, &key(*user), now);
                let served = kept.material.serve(&sealed, now);
                let place = (kept.package, kept.code);
                let may = told.code == kept.code
                    && now < kept.material.lease.not_after
                    && kept
                        .model
                        .serves(place, &allotted, (*user, told.generation), now);
                count(&mut self.seen.served, may);
                assert_eq!(
                    served.is_ok(),
                    may,
                    "{user}, generation {}: {served:?}",
                    told.generation
                );
            }
        }
    }
}

fn shown(leased: &LeasedKeys) -> Expected {
    let grants = leased.grants.iter();
    let digest = |grant: &Signed<Grant>| grant.clone().verify_claimed().unwrap().digest();
    let allotted = leased.allotments.iter();
    Expected {
        id: leased.lease.id,
        issued: leased.issued,
        until: leased.lease.not_after,
        grants: grants.map(digest).collect::<BTreeSet<_>>(),
        allotted: allotted.map(|it| (it.grant, it.requests)).collect(),
        keys: leased
            .audience_keys
            .iter()
            .map(|key| key.not_after)
            .collect(),
    }
}

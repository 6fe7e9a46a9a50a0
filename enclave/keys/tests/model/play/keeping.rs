//! What is remembered: audits, lists, checkpoints.

use super::*;

impl Play {
    /// Compares everybody's audit and list of grants, and the audit with the one kept.
    pub(super) fn observe(&mut self) {
        for by in self.keys.clone() {
            self.observe_audit(by);
            let grants = Listing::Grants {
                package: None,
                user: None,
                after: None,
            };
            let rows = match self.world.list(&key(by), grants) {
                Ok(ListingPage::Grants(rows, false)) => rows,
                Ok(_) => panic!("another page"),
                Err(_) => continue,
            };
            let shown: BTreeMap<Digest, Option<u64>> = rows
                .into_iter()
                .map(|row| (row.grant.verify_claimed().unwrap().digest(), row.left))
                .collect();
            self.agree("a list of grants", |model| model.listed(by) == shown);
        }
        self.ask_for_freshness();
    }

    pub(super) fn observe_audit(&mut self, by: u8) {
        let start = (0, Digest::from_bytes(AUDIT_START));
        let (count, digest) = self.audits.get(&by).copied().unwrap_or(start);
        let Ok(page) = self.world.audit(&key(by), count) else {
            return self.agree("nobody's audit", |model| !model.people().contains(&by));
        };
        self.agree("an audit", |model| model.audit(by) == Some(page.count));
        assert_eq!(
            (page.from, page.before),
            (count, digest),
            "the audit of {by} was changed"
        );
        let now = page
            .entries
            .iter()
            .fold(digest, |before, entry| chained(&before, entry));
        assert_eq!(now, page.digest, "the audit of {by} does not chain");
        self.audits.insert(by, (page.count, now));
    }

    pub(super) fn ask_for_freshness(&mut self) {
        let fresh = self.world.freshness(self.checkpoint.as_deref());
        match fresh {
            Ok(fresh) => self.checkpoint = Some(fresh.checkpoint),
            Err(refused) => assert_eq!(refused, "not-durable"),
        }
    }
}

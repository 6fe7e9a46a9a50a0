//! What is said to the service, once, again and in another order.

use super::*;

impl Play {
    pub(super) fn request(&self, session: usize, by: u8, op: &Op, ahead: u64) -> Vec<u8> {
        let session = Conversation {
            runtime: None,
            binding: self.sessions[session].binding,
            sequence: self.sessions[session].sequence + ahead,
        };
        let command = |operation| cast::sign(&session, &key(by), operation);
        let request = match op {
            Op::Put(_, name, version) => {
                let header = cast::header(&key(by), name, version);
                let key = Secret::from_bytes([9; 32]);
                Request::PutPackage(command(cast::offer(&header, 9)), key)
            }
            other => Request::Command(command(operation(by, other, self.world.now()))),
        };
        request.encode().to_vec()
    }

    pub(super) fn order(&mut self, by: u8, op: &Op) {
        let session = self.random.below(self.sessions.len());
        let request = self.request(session, by, op, 0);
        let answer = self.say(session, &request);
        self.note(format!("{by}: {op:?} -> {answer:?}"));
        self.captured.push(request);
        self.ordered(by, op, &answer);
    }

    pub(super) fn say(&mut self, session: usize, request: &[u8]) -> Result<(), String> {
        let request = Request::decode(request).unwrap();
        let answer = self.world.say(&mut self.sessions[session], request);
        answer.map(drop)
    }

    pub(super) fn ordered(&mut self, by: u8, op: &Op, answer: &Result<(), String>) {
        let host = self.world.now();
        count(&mut self.seen.ordered, answer.is_ok());
        self.heard(answer, |model| model.order(by, op, host));
        if answer.is_ok() || is_open(answer) {
            match op {
                Op::Unregister => drop(self.audits.remove(&by)),
                Op::Succeed(to) => {
                    self.audits.remove(to);
                    if let Some(kept) = self.audits.remove(&by)
                        && answer.is_ok()
                    {
                        self.audits.insert(*to, kept);
                    }
                }
                Op::Delete(package) => self.told.retain(|told| told.package != *package),
                _ => {}
            }
        }
    }

    /// Somebody who saw an earlier message says it again, in its session and in others.
    pub(super) fn replay(&mut self) {
        let at = self.random.below(self.captured.len());
        let request = self.captured[at].clone();
        self.note(format!("message {at} again"));
        for session in 0..self.sessions.len() {
            let again = self.say(session, &request).unwrap_err();
            let refused = ["other-session", "out-of-order"].contains(&again.as_str());
            assert!(refused, "a command said again: {again}");
        }
        let mut runtime = cast::runtime(5);
        let again = self
            .world
            .say(&mut runtime, Request::decode(&request).unwrap());
        assert_eq!(again.map(drop), Err("other-session".to_owned()));
    }

    /// Two messages of a session arrive in the other order, and the first of them twice.
    pub(super) fn swap(&mut self) {
        let (by, then) = (self.newest_of(1), self.newest_of(2));
        let (first, second) = (self.granting(by), Op::Revoke(vec![self.some_id()]));
        let messages = [
            self.request(0, by, &first, 0),
            self.request(0, then, &second, 1),
        ];
        self.note(format!("swapped: {by} {first:?}, {then} {second:?}"));
        assert_eq!(self.say(0, &messages[1]), Err("out-of-order".to_owned()));
        let answer = self.say(0, &messages[0]);
        self.ordered(by, &first, &answer);
        assert_eq!(self.say(0, &messages[0]), Err("out-of-order".to_owned()));
        let answer = self.say(0, &messages[1]);
        self.ordered(then, &second, &answer);
        self.captured.extend(messages);
    }
}

pub(super) fn signed(word: &Word) -> bield_envelope::Verified<Grant> {
    let isolations = [Isolation::Shared, Isolation::Wiped, Isolation::Dedicated];
    let grant = Grant {
        id: [word.id; 16],
        package: match word.which {
            Which::This(digest) => PackageSelector::Digest(digest),
            Which::Called(name, range) => {
                let range = match range {
                    Range::Any => "*",
                    Range::One => "^1",
                    Range::ExactlyTwo => "=2.0.0",
                };
                PackageSelector::Named(name.parse().unwrap(), range.parse().unwrap())
            }
        },
        user: match word.who {
            Who::One(user) => UserSelector::Principal(principal(user)),
            Who::Group(name) => UserSelector::Group(name.parse().unwrap()),
        },
        code: match word.code {
            Code::Exactly(number) => CodeSelector::Measurement(cast::code(number)),
            Code::AtLeast(number) => cast::from_version(number),
        },
        isolation: isolations[usize::from(word.isolation)],
        not_before: word.from,
        not_after: word.until,
        requests: word.left,
    };
    Signed::sign(&key(word.by), grant)
}

pub(super) fn operation(by: u8, op: &Op, host: Time) -> Operation {
    match op {
        Op::Register => Operation::Register,
        Op::Unregister => Operation::Unregister,
        Op::Put(..) => unreachable!("it travels with a key"),
        Op::Delete(package) => Operation::DeletePackage(*package),
        Op::Grant(word) => Operation::Grant(signed(word).into_signed()),
        Op::Revoke(ids) => Operation::Revoke(ids.iter().map(|id| GrantId([*id; 16])).collect()),
        Op::PutGroup(name, revision, members) => {
            let members: Vec<u8> = members.iter().copied().collect();
            Operation::PutGroup(cast::group(&key(by), name, *revision, &members))
        }
        Op::DeleteGroup(name) => Operation::DeleteGroup((*name).to_owned()),
        Op::Rotate(package, at_once) => Operation::RotateAudience {
            package: *package,
            at_once: *at_once,
        },
        Op::Succeed(to) => Operation::Succeed(cast::succession(&key(by), &key(*to), host)),
        Op::RotateIdentity => Operation::RotateIdentity,
    }
}

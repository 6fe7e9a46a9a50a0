//! Cosignatures: a witness's word that it saw a log grow, and when
//! (c2sp.org/tlog-cosignature@v1.0.1, type 0x04).
//!
//! ```text
//! cosignature/v1                                    ┐
//! time 1679315147                                   │ what is signed
//! example.com/behind-the-sofa                       │
//! 20852163                                          │  = two lines of our own,
//! CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=      ┘    then the checkpoint's text
//!
//! — witness.example.com/w1 base64(key id ‖ u64 time, big-endian ‖ 64-byte signature)
//! ```
//!
//! Always true: the time is signed with the checkpoint; no text a log signs begins like this, since
//! the second line of a checkpoint is a number, so neither kind of signature can stand for the
//! other.
//!
//! Left to others: when a witness may cosign ([`crate::witness`]), how many cosignatures are enough
//! and how old they may be ([`crate::quorum`]).
//!
//! Cost: one Ed25519 signature; 108 bytes of note plus the witness's name.

use bield_envelope::Time;

use crate::checkpoint::VerifiedCheckpoint;
use crate::note::{Note, NoteError, SignatureLine, WitnessKey, WitnessVerifier};

impl WitnessKey {
    /// Cosigns a checkpoint as of `now`, in whole seconds.
    ///
    /// Says "the largest tree of this log I have seen, and it contains every earlier one". A
    /// [`Witness`](crate::Witness) makes sure of that; who calls this directly has to.
    #[must_use]
    pub fn cosign(&self, checkpoint: &VerifiedCheckpoint, now: Time) -> SignatureLine {
        // A `Time` is in milliseconds, so its seconds stay below 2^63 as required.
        let seconds = now.as_secs();
        let signature = self.signature(&message(seconds, checkpoint.note().text()));
        let blob = [seconds.to_be_bytes().as_slice(), &signature].concat();
        SignatureLine::new(self.verifier(), blob)
    }
}

impl WitnessVerifier {
    /// Tells when this witness last cosigned the text of `note`, if it did.
    ///
    /// # Errors
    /// [`NoteError::Forged`] when a line in this witness's name does not verify.
    pub fn last_cosigned(&self, note: &Note) -> Result<Option<Time>, NoteError> {
        let mut last = None;
        for line in note.by(self) {
            last = last.max(Some(self.cosigned_at(note.text(), line)?));
        }
        Ok(last)
    }

    /// Checks one line, which carries this witness's name and id, and tells its time.
    pub(crate) fn cosigned_at(&self, text: &str, line: &SignatureLine) -> Result<Time, NoteError> {
        let forged = || NoteError::Forged {
            name: self.name().clone(),
        };
        let (seconds, signature) = line.bytes().split_first_chunk::<8>().ok_or_else(forged)?;
        let seconds = u64::from_be_bytes(*seconds);
        if seconds > SECONDS_MAX || !self.accepts(&message(seconds, text), signature) {
            return Err(forged());
        }
        Ok(Time::from_secs(seconds))
    }
}

fn message(seconds: u64, text: &str) -> Vec<u8> {
    format!("cosignature/v1\ntime {seconds}\n{text}").into_bytes()
}

/// tlog-cosignature, "Format": the timestamp must not exceed 2⁶³ − 1.
const SECONDS_MAX: u64 = i64::MAX as u64;

#[cfg(test)]
mod tests {
    use bield_envelope::Secret;

    use super::*;
    use crate::checkpoint::{Checkpoint, Origin, SignedCheckpoint};
    use crate::note::LogKey;
    use crate::tree::Hash;

    const THEN: Time = Time::from_secs(1_679_315_147);

    fn log() -> LogKey {
        LogKey::new(
            "example.com/log".parse().unwrap(),
            &Secret::from_bytes([1; 32]),
        )
    }

    fn witness(name: &str, number: u8) -> WitnessKey {
        WitnessKey::new(name.parse().unwrap(), &Secret::from_bytes([number; 32]))
    }

    fn checkpoint(size: u64) -> VerifiedCheckpoint {
        let origin = Origin::from(log().verifier().name());
        Checkpoint::new(origin, size, Hash::from_bytes([7; 32])).sign(&log())
    }

    fn note(text: &str) -> Note {
        Note::parse(text.as_bytes()).unwrap()
    }

    /// tlog-cosignature, first page: the time in the blob is the one in the signed message.
    #[test]
    fn the_example_of_the_specification_has_its_fields_where_ours_are() {
        let line = "— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZ\
                    CB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";
        let line = &crate::note::parse_signatures(line).unwrap()[0];
        assert_eq!(line.id().to_string(), "8d66cf3f");
        assert_eq!(line.bytes().len(), 72);
        assert_eq!(line.bytes()[..8], THEN.as_secs().to_be_bytes());
    }

    /// A checkpoint of a public log (Certificate Transparency, staging), as two of its keys and four
    /// public witnesses signed it on 2026-05-23.
    #[test]
    fn a_checkpoint_of_a_public_log_and_its_witness_verify() {
        let note = "arche2025h1.staging.ct.transparency.dev\n1432088532\n\
            U7WM79jrzyhGZ5/GUBTpM7NzwdyfFx61t3RovgcC4Ro=\n\n\
            — arche2025h1.staging.ct.transparency.dev zTM8sQAAAZ5W0WdjBAMARjBEAiBjW5IQf9pvsYLfQFX6h\
            oGREPMHbdQ3urbllzalApkptQIgIpwtEroeW2BXaHAI4kJXFbon5Ch9MNL5zRNZ55lvGt0=\n\
            — arche2025h1.staging.ct.transparency.dev ui8GwCF1+kWqZrxGdhj4aX3gcw7XUlXQQabg/27lefwhU\
            kzbC3NygNI75MdhL1bfTW9g8Ei59RA23oHP7Ry1k3ZFWwQ=\n\
            — transparency.dev/DEV:witness-little-garden 2AQqhwAAAABqEiEgzgFIqqhbUoDwjMWE6UP8nd8/KYT\
            zwZ2rhIgcqoXHAwVkjZr4AscylP3v7sEodkRAErumC2q44vdgJY096st5BQ==\n\
            — witness1.smartit.nu/witness1 pIyCDwAAAABqEiEghIp82KWebrw7/oHQwlTAm3g2RKS4+eebl8eO0WH+/\
            iEcxZ75W3u5hNI7TOQtmJbqmNWVuE0tgh0XwzdZsDsUAQ==\n\
            — remora.n621.de 2net5wAAAABqEiEgPlfF3V06o0Y+fHM+J5J9s27wgxxcOVSpZ/2g/KSiXCg9DEZI+aVCIob\
            WX9sXTynk5XeU/zZ0WBxtqB0DrAWfBw==\n\
            — witness.stagemole.eu Z/euoAAAAABqEiEgw0i+7g2ENfDAWHmtRzCfKTHSDwYDJA2NmKeGi9Y8FtEyOUvVr\
            +AJmIY/2TUFucgKi7lI7cUiOvKFYe/TmN9DAg==\n";
        let log = "arche2025h1.staging.ct.transparency.dev+ba2f06c0+AU0vHmlGCS/PdN8b2OaGmKprLI8HKM+d\
                   J472xgFYh15f";
        let witness = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2";
        let witness: WitnessVerifier = witness.parse().unwrap();
        let origin = "arche2025h1.staging.ct.transparency.dev".parse().unwrap();
        let signed = SignedCheckpoint::parse(note.as_bytes()).unwrap();
        assert_eq!(signed.to_string(), note);
        let checkpoint = signed.verify(&origin, &[log.parse().unwrap()]).unwrap();
        assert_eq!(checkpoint.checkpoint().size(), 1_432_088_532);
        let at = witness.last_cosigned(checkpoint.note()).unwrap().unwrap();
        assert_eq!(at.to_string(), "2026-05-23T21:50:24Z");
        let other = Note::parse(note.replace("1432088532", "1432088533").as_bytes()).unwrap();
        assert!(witness.last_cosigned(&other).is_err());
    }

    #[test]
    fn what_is_signed_is_the_text_of_the_specification() {
        let text = "example.com/behind-the-sofa\n20852163\n\
                    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
        assert_eq!(
            message(THEN.as_secs(), text),
            b"cosignature/v1\ntime 1679315147\nexample.com/behind-the-sofa\n20852163\n\
              CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
        );
    }

    #[test]
    fn a_cosignature_is_an_ed25519_signature_others_verify() {
        use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
        let (key, checkpoint) = (witness("w", 2), checkpoint(3));
        let line = key.cosign(&checkpoint, THEN);
        let message = format!(
            "cosignature/v1\ntime 1679315147\n{}",
            checkpoint.note().text()
        );
        UnparsedPublicKey::new(&ED25519, key.verifier().public())
            .verify(message.as_bytes(), &line.bytes()[8..])
            .unwrap();
        // The id is of type 4: SHA-256("w\n" 0x04 key)[..4].
        let hashed = [b"w\n\x04".as_slice(), key.verifier().public()].concat();
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &hashed);
        assert_eq!(line.id().as_bytes(), &hash.as_ref()[..4]);
    }

    #[test]
    fn a_cosigned_checkpoint_tells_by_whom_and_when() {
        let (one, two) = (witness("one", 2), witness("two", 3));
        let mut checkpoint = checkpoint(3);
        let later = THEN.plus(core::time::Duration::from_secs(60));
        checkpoint.add(one.cosign(&checkpoint, later)).unwrap();
        let note = note(&checkpoint.to_string());
        assert_eq!(one.verifier().last_cosigned(&note), Ok(Some(later)));
        assert_eq!(two.verifier().last_cosigned(&note), Ok(None));
        // The same key under another name, and another key under the same name: strangers.
        let renamed = witness("other", 2);
        assert_eq!(renamed.verifier().last_cosigned(&note), Ok(None));
        assert_eq!(witness("one", 9).verifier().last_cosigned(&note), Ok(None));
        // The log's signature still holds.
        let signed = SignedCheckpoint::parse(checkpoint.to_string().as_bytes()).unwrap();
        let keys = [log().verifier().clone()];
        assert!(
            signed
                .verify(&"example.com/log".parse().unwrap(), &keys)
                .is_ok()
        );
        // Cosigning again takes the place of the first.
        checkpoint.add(one.cosign(&checkpoint, THEN)).unwrap();
        assert_eq!(checkpoint.note().signatures().len(), 2);
        assert_eq!(
            one.verifier().last_cosigned(checkpoint.note()),
            Ok(Some(THEN))
        );
    }

    #[test]
    fn a_cosignature_with_one_bit_changed_is_no_cosignature() {
        let (key, checkpoint) = (witness("w", 2), checkpoint(3));
        let line = key.cosign(&checkpoint, THEN).to_string();
        let good = format!("{}\n{line}", checkpoint.checkpoint()).into_bytes();
        let verdict = |bytes: &[u8]| {
            let note = Note::parse(bytes).ok()?;
            key.verifier().last_cosigned(&note).ok()?
        };
        assert_eq!(verdict(&good), Some(THEN));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(verdict(&bad), None, "bit {bit}");
        }
    }

    #[test]
    fn a_line_too_short_or_too_late_in_a_witnesss_name_is_forged() {
        let (key, mut checkpoint) = (witness("w", 2), checkpoint(3));
        let text = checkpoint.note().text().to_owned();
        let late = SECONDS_MAX + 1;
        let late = [
            late.to_be_bytes().as_slice(),
            &key.signature(&message(late, &text)),
        ]
        .concat();
        for blob in [vec![1], vec![0; 8], vec![0; 71], vec![0; 73], late] {
            let line = SignatureLine::new(key.verifier(), blob);
            checkpoint.add(line).unwrap();
            assert!(matches!(
                key.verifier().last_cosigned(checkpoint.note()),
                Err(NoteError::Forged { .. })
            ));
        }
    }

    #[test]
    fn a_witnesss_answer_is_added_only_when_it_verifies() {
        let (one, two) = (witness("one", 2), witness("two", 3));
        let trusted = [one.verifier().clone()];
        let mut checkpoint = checkpoint(3);
        let (line, strange) = (one.cosign(&checkpoint, THEN), two.cosign(&checkpoint, THEN));

        let added = checkpoint
            .add_cosignatures(&format!("{strange}{line}"), &trusted)
            .unwrap();
        assert_eq!((added[0].witness.as_str(), added[0].at), ("one", THEN));
        assert_eq!(checkpoint.note().signatures().len(), 2, "log and one");

        let before = checkpoint.clone();
        let elsewhere = one.cosign(&self::checkpoint(4), THEN);
        for (answer, error) in [
            (String::new(), NoteError::Unsigned),
            (strange.to_string(), NoteError::Unsigned),
            ("<html>\n".to_owned(), NoteError::Line { line: 1 }),
            (format!("{line}x"), NoteError::Line { line: 2 }),
            (
                format!("{line}{elsewhere}"),
                NoteError::Forged {
                    name: "one".parse().unwrap(),
                },
            ),
        ] {
            assert_eq!(checkpoint.add_cosignatures(&answer, &trusted), Err(error));
            assert_eq!(checkpoint, before);
        }
    }
}

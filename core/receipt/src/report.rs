//! What the checks of a receipt found, and the two ways it can end.

use core::fmt;

use bield_envelope::Verified;
use bield_evidence::{Check, Outcome};

use crate::{Receipt, WorkerCertificate};

/// Every check of one receipt, in the order of the chain of trust.
///
/// Checks that could not be made, because the reader gave nothing to compare with or because an
/// earlier link failed, are listed as *not checked*.
#[derive(Debug)]
pub struct Report {
    pub(crate) checks: Vec<Check>,
    pub(crate) certificate: Option<Verified<WorkerCertificate>>,
    pub(crate) receipt: Option<Verified<Receipt>>,
}

impl Report {
    /// The checks, in order.
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// Whether both signatures hold and no check failed.
    pub fn passed(&self) -> bool {
        self.receipt.is_some() && self.failed().next().is_none()
    }

    /// The receipt, when both signatures hold, whatever else failed; for display.
    pub fn receipt(&self) -> Option<&Verified<Receipt>> {
        self.receipt.as_ref()
    }

    /// Turns the report into a verdict.
    ///
    /// # Errors
    /// [`ReceiptError`] with every failed check.
    pub fn accept(self) -> Result<VerifiedReceipt, ReceiptError> {
        let passed = self.passed();
        match (self.certificate, self.receipt) {
            (Some(certificate), Some(receipt)) if passed => Ok(VerifiedReceipt {
                receipt,
                certificate,
                checks: self.checks,
            }),
            _ => Err(ReceiptError {
                checks: self.checks,
            }),
        }
    }

    fn failed(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| failed(check))
    }
}

/// A receipt that passed every check that was made; only [`Report::accept`] makes one.
#[derive(Debug)]
pub struct VerifiedReceipt {
    receipt: Verified<Receipt>,
    certificate: Verified<WorkerCertificate>,
    checks: Vec<Check>,
}

impl VerifiedReceipt {
    /// What the runtime said.
    pub fn receipt(&self) -> &Verified<Receipt> {
        &self.receipt
    }

    /// What the key service said about the runtime.
    pub fn certificate(&self) -> &Verified<WorkerCertificate> {
        &self.certificate
    }

    /// Every check, also those that were not made.
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// Whether the answer came from a software TEE.
    pub fn simulated(&self) -> bool {
        self.certificate.simulated
    }

    /// What protected the answer, in words for people; always shown beside the verdict.
    pub fn protection(&self) -> &'static str {
        if self.simulated() {
            "software TEE: no hardware protection"
        } else {
            "hardware TEE"
        }
    }
}

/// One line: verdict, protection, and how much was not checked.
impl fmt::Display for VerifiedReceipt {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let skipped: Vec<&str> = self
            .checks
            .iter()
            .filter(|check| check.outcome == Outcome::NotChecked)
            .map(|check| check.name)
            .collect();
        write!(out, "receipt verified ({})", self.protection())?;
        if !skipped.is_empty() {
            write!(out, "; NOT CHECKED: {}", skipped.join(", "))?;
        }
        Ok(())
    }
}

/// The receipt is not to be believed. Trying again does not help: a new answer has a new receipt.
#[derive(Debug, Clone, thiserror::Error)]
#[error("receipt refused: {}; do not retry with this receipt", Failures(.checks))]
pub struct ReceiptError {
    checks: Vec<Check>,
}

impl ReceiptError {
    /// Every check, with the failed ones among them.
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// The failed checks: at least one.
    pub fn failed(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| failed(check))
    }
}

fn failed(check: &Check) -> bool {
    check.outcome == Outcome::Failed
}

struct Failures<'a>(&'a [Check]);

impl fmt::Display for Failures<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, check) in self.0.iter().filter(|check| failed(check)).enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(
                out,
                "{separator}{}: have {}, need {}",
                check.name, check.have, check.need
            )?;
        }
        Ok(())
    }
}

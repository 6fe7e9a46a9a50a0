//! What stands behind the faces: models that are called sealed.
//!
//! Always true of an implementation: what it says of a model comes from a key configuration that an
//! attested service named, never from a gateway; a [`Done`] exists only after its receipt was
//! verified, and says whether it was kept too. Its functions block: the faces run them on threads of their own.

use bield_envelope::Digest;
use bield_sdk::{Tensor, TensorSpec};

use crate::oip::infer::Form;
use crate::refused::Refused;

/// Models that can be called.
pub(crate) trait Upstream: Send + Sync {
    /// Names under which models are served, in order.
    fn names(&self) -> Vec<String>;

    /// What a model is, now; verified anew when what was known of it ends.
    ///
    /// # Errors
    /// No model of that name, or it cannot be verified.
    fn about(&self, model: &str) -> Result<About, Refused>;

    /// Calls the package that [`about`](Self::about) told of: all outputs when `outputs` is empty.
    ///
    /// # Errors
    /// See [`Refused`]; another package is served under that name by now.
    fn call(
        &self,
        about: &About,
        inputs: Vec<Tensor>,
        outputs: Vec<String>,
    ) -> Result<Done, Refused>;

    /// Seals a call that somebody else carries.
    ///
    /// # Errors
    /// See [`Refused`].
    fn seal(
        &self,
        about: &About,
        inputs: Vec<Tensor>,
        outputs: Vec<String>,
        form: Form,
    ) -> Result<Carried, Refused>;

    /// Opens what came back for the call that was sealed as `id`, once; and the form in which it was asked for.
    ///
    /// # Errors
    /// Nothing waits under that name, or what came back is not its verified answer.
    fn open(&self, id: Digest, sealed: &[u8]) -> Result<(Done, Form), Refused>;

    /// Whether the key service's evidence is of a software TEE, which protects nothing.
    fn simulated(&self) -> bool;
}

/// What a model is, by the attested key configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct About {
    /// The name under which it is served here.
    pub(crate) name: String,
    /// The owner's version.
    pub(crate) version: String,
    pub(crate) package: Digest,
    /// Who owns it.
    pub(crate) owner: String,
    pub(crate) inputs: Vec<TensorSpec>,
    pub(crate) outputs: Vec<TensorSpec>,
}

/// A verified answer.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) model: String,
    pub(crate) version: String,
    pub(crate) tensors: Vec<Tensor>,
    /// Names the receipt.
    pub(crate) receipt: Digest,
    /// Whether the home could keep the receipt.
    pub(crate) kept: bool,
    /// How warm the start was, by the gateway's word.
    pub(crate) start: Option<&'static str>,
    /// Whether the code that answered ran in a software TEE.
    pub(crate) simulated: bool,
}

/// A sealed call for somebody else to carry.
pub(crate) struct Carried {
    /// A secret of whoever may open the answer.
    pub(crate) id: Digest,
    /// Names the receipt that the answer will have.
    pub(crate) receipt: Digest,
    pub(crate) sealed: Vec<u8>,
}

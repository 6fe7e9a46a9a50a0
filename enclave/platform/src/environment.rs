//! No environment: what the host says to a program is measured, or read from the door and checked.
//!
//! Goes in: the variables of this process. Comes out: nothing, or a refusal that names one.
//! Always true: after [`refuse_environment`] no library that looks for a variable later finds one that a host set.
//! aws-lc reads `OPENSSL_ia32cap` when it is loaded, before anything here runs, so that a host that sets it is
//! refused and not obeyed for long: no secret exists yet.

use std::ffi::OsString;

/// The host set a variable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the environment sets {name}; the launcher must pass no environment to enclave programs")]
pub struct EnvironmentError {
    /// The first variable found, its value left out.
    pub name: String,
}

/// Checks that the host passed no environment variable; to be called first, while there is one thread and no secret.
///
/// # Errors
/// There is one.
pub fn refuse_environment() -> Result<(), EnvironmentError> {
    none_of(std::env::vars_os().map(|(name, _)| name))
}

fn none_of(mut names: impl Iterator<Item = OsString>) -> Result<(), EnvironmentError> {
    match names.next() {
        Some(name) => Err(EnvironmentError {
            name: name.to_string_lossy().into_owned(),
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_variable_is_refused_by_name() {
        assert_eq!(none_of([].into_iter()), Ok(()));
        let refused = none_of(["OPENSSL_ia32cap".into(), "PATH".into()].into_iter());
        assert_eq!(refused.unwrap_err().name, "OPENSSL_ia32cap");
    }
}

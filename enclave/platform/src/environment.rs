//! No environment but our own: what the host says to a program is measured, or read from the door and checked.
//!
//! Goes in: the variables of this process. Comes out: a refusal that names one, or those that the program wants.
//! Always true: after [`refuse_environment`] no library that looks for a variable later finds one that a host set.
//! aws-lc reads `OPENSSL_ia32cap` when it is loaded, before anything here runs, so that a host that sets it is
//! refused and not obeyed for long: no secret exists yet.

#![expect(
    unsafe_code,
    reason = "libraries read the environment, which is changed while there is one thread"
)]

use std::ffi::OsString;

/// Why there is no environment to start with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvironmentError {
    /// The host set a variable.
    #[error(
        "the environment sets {name}; the launcher must pass no environment to enclave programs"
    )]
    Set {
        /// The first variable found, its value left out.
        name: String,
    },
    /// Other threads may be reading the environment. A fault of the program.
    #[error(
        "the environment was looked at too late: this process has more than one thread, or does not tell"
    )]
    Threads,
}

/// Checks that the host passed no environment variable, and sets those in `own`, names and values, for libraries that ask
/// for them; to be called first, while there is one thread and no secret.
///
/// # Errors
/// There is one, or another thread.
pub fn refuse_environment(own: &[(&str, &str)]) -> Result<(), EnvironmentError> {
    none_of(std::env::vars_os().map(|(name, _)| name))?;
    let threads = std::fs::read_dir("/proc/self/task").map(Iterator::count);
    if !matches!(threads, Ok(1)) {
        return Err(EnvironmentError::Threads);
    }
    // SAFETY: this is the only thread, so none reads the environment meanwhile.
    own.iter()
        .for_each(|(name, value)| unsafe { std::env::set_var(name, value) });
    Ok(())
}

fn none_of(mut names: impl Iterator<Item = OsString>) -> Result<(), EnvironmentError> {
    match names.next() {
        Some(name) => Err(EnvironmentError::Set {
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
        let name = "OPENSSL_ia32cap".to_owned();
        assert_eq!(refused, Err(EnvironmentError::Set { name }));
    }
}

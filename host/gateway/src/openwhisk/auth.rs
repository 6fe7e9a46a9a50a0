//! Who asks: basic authentication with a namespace's `uuid:key`.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::str::FromStr;
use std::sync::LazyLock;

use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bield_envelope::Digest;
use bield_packer::Caller;
use subtle::ConstantTimeEq as _;

use super::error::WhiskError;

/// A namespace and the digest of its `uuid:key`, which itself is not kept.
#[derive(Clone)]
pub struct Account {
    namespace: String,
    digest: Digest,
}

impl Account {
    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Whether a name or a key stands for both.
    pub(crate) fn is_taken_for(&self, other: &Account) -> bool {
        self.namespace == other.namespace || self.digest == other.digest
    }

    /// The namespace as the packer knows it, under a key of this process.
    pub(super) fn caller(&self) -> Caller {
        static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        Caller(KEY.hash_one(&self.namespace))
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Account({})", self.namespace)
    }
}

impl FromStr for Account {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Account, Self::Err> {
        let mut parts = text.splitn(3, ':');
        let (Some(namespace), Some(uuid), Some(key)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err("an account is NAMESPACE:UUID:KEY");
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.@".contains(&byte);
        if namespace == "_" || namespace.is_empty() || !namespace.bytes().all(plain) {
            return Err("a namespace has letters, digits, -, ., @ and _, and is not _ alone");
        }
        if uuid.is_empty() || key.is_empty() {
            return Err("neither UUID nor KEY is empty");
        }
        Ok(Account {
            namespace: namespace.to_owned(),
            digest: digest(format!("{uuid}:{key}").as_bytes()),
        })
    }
}

/// Which of the accounts it is. Takes as long for each, whoever asks.
pub(super) fn authenticate<'a>(
    headers: &HeaderMap,
    accounts: impl Iterator<Item = &'a Account>,
) -> Result<usize, WhiskError> {
    let refuse = |message| WhiskError::new(StatusCode::UNAUTHORIZED, message);
    let header = headers.get(header::AUTHORIZATION).ok_or_else(|| {
        refuse("The resource requires authentication, which was not supplied with the request")
    })?;
    let invalid = || refuse("The supplied authentication is invalid");
    let text = header.to_str().map_err(|_| invalid())?;
    let (scheme, secret) = text.split_once(' ').ok_or_else(invalid)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(invalid());
    }
    let secret = STANDARD.decode(secret.trim()).map_err(|_| invalid())?;
    let digest = digest(&secret);
    // Digests of one length, compared in constant time, all of them.
    let mut found = None;
    for (index, account) in accounts.enumerate() {
        if account.digest.as_bytes().ct_eq(digest.as_bytes()).into() {
            found = Some(index);
        }
    }
    found.ok_or_else(invalid)
}

fn digest(secret: &[u8]) -> Digest {
    Digest::of("bield gateway openwhisk account v1", &[secret])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(secret: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let value = format!("Basic {}", STANDARD.encode(secret));
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        headers
    }

    #[test]
    fn the_right_key_opens_its_namespace_and_no_other_does() {
        let accounts: Vec<Account> = ["guest:23bc:123z", "lab:u:k:with:colons"]
            .map(|text| text.parse().unwrap())
            .into();
        let who = |headers: &HeaderMap| authenticate(headers, accounts.iter()).ok();
        assert_eq!(who(&asks("23bc:123z")), Some(0));
        assert_eq!(who(&asks("u:k:with:colons")), Some(1));
        for secret in ["23bc:123Z", "23bc:", "guest:23bc:123z", "", "u:k"] {
            assert_eq!(who(&asks(secret)), None, "{secret}");
        }
        assert_eq!(who(&HeaderMap::new()), None);
        let shown = format!("{accounts:?}");
        assert_eq!(shown, "[Account(guest), Account(lab)]");
    }

    #[test]
    fn accounts_are_told_apart_by_name_and_by_key() {
        let account = |text: &str| text.parse::<Account>().unwrap();
        let one = account("guest:u:k");
        assert!(one.is_taken_for(&account("guest:v:l")));
        assert!(one.is_taken_for(&account("lab:u:k")));
        assert!(!one.is_taken_for(&account("lab:u:l")));
    }

    #[test]
    fn what_is_no_account_is_named() {
        for text in [
            "guest",
            "guest:uuid",
            "_:u:k",
            ":u:k",
            "a/b:u:k",
            "g::k",
            "g:u:",
        ] {
            assert!(text.parse::<Account>().is_err(), "{text}");
        }
    }
}

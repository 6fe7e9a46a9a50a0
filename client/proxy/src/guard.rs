//! Who may ask: processes of this machine that address it as such, with the token where there is one.
//!
//! Always true of a request that passes: it names a loopback host (a page whose name was made to resolve to
//! this machine does not: DNS rebinding), it comes from no page of another site (`Origin`,
//! `Sec-Fetch-Site`), and it carries the token where one was set, compared in constant time. No header lets a
//! page of another site read an answer.

use std::net::IpAddr;
use std::path::Path;

use axum::http::{HeaderMap, StatusCode, Uri, header};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::refused::Refused;

/// Fewest bytes of a token, so that nobody guesses one.
const TOKEN_BYTES_MIN: usize = 16;
/// Most bytes of a token.
const TOKEN_BYTES_MAX: usize = 512;

/// What callers have to show.
pub struct Token(Zeroizing<Vec<u8>>);

impl Token {
    /// Reads a token from a file that nobody else can read; white space at its ends does not count.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn read(path: &Path) -> Result<Self, String> {
        use std::os::unix::fs::MetadataExt as _;

        let at = |error: std::io::Error| error.to_string();
        let metadata = std::fs::metadata(path).map_err(at)?;
        if metadata.mode() & 0o077 != 0 {
            return Err("others can read or write it; chmod 600".to_owned());
        }
        if metadata.len() > 2 * TOKEN_BYTES_MAX as u64 {
            return Err("it is too long for a token".to_owned());
        }
        let bytes = Zeroizing::new(std::fs::read(path).map_err(at)?);
        let token = bytes.trim_ascii();
        if !(TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&token.len()) {
            return Err(format!(
                "a token has {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} bytes"
            ));
        }
        if !token.iter().all(u8::is_ascii_graphic) {
            return Err("a token is printable ASCII without spaces".to_owned());
        }
        Ok(Self(Zeroizing::new(token.to_vec())))
    }

    fn is_shown(&self, headers: &HeaderMap) -> bool {
        let shown = headers
            .get(header::AUTHORIZATION)
            .map_or(&b""[..], |value| value.as_bytes());
        let (scheme, token) = shown.split_at(shown.len().min(BEARER.len()));
        scheme.eq_ignore_ascii_case(BEARER) && bool::from(token.ct_eq(&self.0))
    }
}

/// Refuses who may not ask.
///
/// # Errors
/// Why not.
pub(crate) fn check(token: Option<&Token>, uri: &Uri, headers: &HeaderMap) -> Result<(), Refused> {
    let forbidden = |why: &str| Err(Refused::new(StatusCode::FORBIDDEN, "forbidden", why));
    // HTTP/2 has the authority in the target, HTTP/1.1 in a header; both count where both are.
    let host = headers
        .get(header::HOST)
        .map(|value| value.to_str().unwrap_or_default());
    let named: Vec<_> = uri
        .authority()
        .map(axum::http::uri::Authority::as_str)
        .into_iter()
        .chain(host)
        .collect();
    if named.is_empty() || !named.iter().all(|name| is_loopback(name)) {
        return forbidden("this proxy answers to localhost, 127.0.0.1 and [::1] only");
    }
    if let Some(origin) = headers.get(header::ORIGIN) {
        let own = origin
            .to_str()
            .ok()
            .and_then(|origin| origin.split_once("://"));
        if !own.is_some_and(|(_, authority)| is_loopback(authority)) {
            return forbidden("pages of other sites may not ask here");
        }
    }
    if headers
        .get("sec-fetch-site")
        .is_some_and(|site| site == "cross-site")
    {
        return forbidden("pages of other sites may not ask here");
    }
    match token {
        Some(token) if !token.is_shown(headers) => Err(Refused::new(
            StatusCode::UNAUTHORIZED,
            "no-token",
            "this proxy wants the token of its --token-file: authorization: Bearer TOKEN (the openai \
             client's api_key)",
        )),
        _ => Ok(()),
    }
}

/// Whether `host` or `host:port` names this machine's loopback, without asking anybody.
fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or("", |(host, _)| host),
        None => authority
            .split_once(':')
            .map_or(authority, |(host, _)| host),
    };
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse()
            .is_ok_and(|address: IpAddr| address.is_loopback())
}

const BEARER: &[u8] = b"Bearer ";

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn asks(token: Option<&Token>, uri: &str, headers: &[(&str, &str)]) -> u16 {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = axum::http::HeaderName::try_from(*name).unwrap();
            map.insert(name, value.parse().unwrap());
        }
        let checked = check(token, &uri.parse().unwrap(), &map);
        checked.err().map_or(200, |refused| refused.status.as_u16())
    }

    #[test]
    fn only_names_of_the_loopback_are_answered_to() {
        for host in [
            "localhost:8000",
            "LOCALHOST",
            "127.0.0.1:8000",
            "127.8.9.1",
            "[::1]:8000",
        ] {
            assert_eq!(asks(None, "/v2", &[("host", host)]), 200, "{host}");
            assert_eq!(asks(None, &format!("http://{host}/v2"), &[]), 200, "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "10.0.0.1",
            "127.0.0.1.evil.example",
            "",
            "[::2]",
            "[::1",
        ] {
            assert_eq!(asks(None, "/v2", &[("host", host)]), 403, "{host}");
        }
        assert_eq!(asks(None, "/v2", &[]), 403);
        assert_eq!(
            asks(None, "http://localhost/v2", &[("host", "evil.example")]),
            403
        );
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        let with = |name, value| asks(None, "/v2", &[("host", "localhost"), (name, value)]);
        assert_eq!(with("origin", "http://localhost:3000"), 200);
        assert_eq!(with("origin", "https://evil.example"), 403);
        assert_eq!(with("origin", "null"), 403);
        assert_eq!(with("sec-fetch-site", "cross-site"), 403);
    }

    #[test]
    fn a_token_is_wanted_where_one_was_set() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, "0123456789abcdef\n").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert!(Token::read(&path).is_err_and(|why| why.contains("chmod 600")));
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let token = Token::read(&path).map_err(|why| panic!("{why}")).ok();
        let with = |shown| {
            asks(
                token.as_ref(),
                "/v2",
                &[("host", "localhost"), ("authorization", shown)],
            )
        };
        assert_eq!(with("Bearer 0123456789abcdef"), 200);
        assert_eq!(with("bearer 0123456789abcdef"), 200);
        for wrong in [
            "",
            "Bearer",
            "Bearer 0123456789abcdeF",
            "Bearer 0123456789abcdef0",
            "0123456789abcdef",
        ] {
            assert_eq!(with(wrong), 401, "{wrong}");
        }
        fs::write(&path, "short").unwrap();
        assert!(Token::read(&path).is_err_and(|why| why.contains("16 to 512")));
    }
}

//! `GET /`: what `/v1/status` says, for people. One file, nothing from elsewhere.
//!
//! Always true: a browser runs the one script and applies the one style sheet whose digests the policy names, asks this gateway
//! only, and shows the page in no frame; words of programs, which this host does not trust, become text and never HTML. The
//! page itself holds nothing: it asks for `/v1/status` every few seconds.

use axum::http::header;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

const PAGE: &str = include_str!("page/page.html");

/// The page with what a browser may do with it.
#[derive(Clone)]
pub(crate) struct Page {
    policy: String,
}

impl Page {
    /// Digests script and style; done once.
    pub(crate) fn new() -> Page {
        let digest = |tag| STANDARD.encode(Sha256::digest(inside(PAGE, tag)));
        Page {
            policy: format!(
                "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; img-src data:; connect-src 'self'; \
                 base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
                digest("script"),
                digest("style")
            ),
        }
    }

    pub(crate) fn answer(&self) -> Response {
        let heads = [
            (header::CONTENT_TYPE, "text/html; charset=utf-8"),
            (header::CONTENT_SECURITY_POLICY, self.policy.as_str()),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::CACHE_CONTROL, "no-cache"),
        ];
        (heads, PAGE).into_response()
    }
}

/// What is between the only `<tag>` and its end.
fn inside<'p>(page: &'p str, tag: &str) -> &'p str {
    let after = page.split_once(&format!("<{tag}>"));
    let within = after.and_then(|(_, rest)| rest.split_once(&format!("</{tag}>")));
    within.map_or("", |(within, _)| within)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_one_script_and_one_style_sheet_and_nothing_from_elsewhere() {
        for tag in ["script", "style"] {
            assert_eq!(PAGE.matches(&format!("<{tag}")).count(), 1, "{tag}");
            assert!(inside(PAGE, tag).len() > 1000, "{tag}");
        }
        // Names of XML dialects are the only addresses.
        let addresses = PAGE.matches("://").count();
        assert_eq!(
            addresses,
            PAGE.matches("http://www.w3.org/2000/svg").count()
        );
        for way in [
            "innerHTML",
            "outerHTML",
            "insertAdjacent",
            "document.write",
            "eval(",
            " style=\"",
            " onclick",
        ] {
            assert!(!PAGE.contains(way), "{way}");
        }
    }

    #[test]
    fn a_browser_may_run_this_script_and_no_other() {
        let answer = Page::new().answer();
        let policy = answer.headers()["content-security-policy"]
            .to_str()
            .unwrap();
        let digest = STANDARD.encode(Sha256::digest(inside(PAGE, "script")));
        assert!(policy.starts_with("default-src 'none'; "), "{policy}");
        assert!(
            policy.contains(&format!("script-src 'sha256-{digest}'; ")),
            "{policy}"
        );
        assert!(!policy.contains("unsafe"), "{policy}");
    }
}

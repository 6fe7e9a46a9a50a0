//! Names and numbers out of paths and query strings.
//!
//! Always true: a name that is given twice or not known is refused, so that a misspelt limit is not
//! taken for no limit.

use std::str::FromStr;

use bield_capsule::CapsuleName;

use crate::Refusal;

/// The parameters of one request.
pub(super) struct Query<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Query<'a> {
    /// Takes a query string apart, of which only `names` are known.
    pub(super) fn parse(text: Option<&'a str>, names: &[&str]) -> Result<Self, Refusal> {
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        for pair in text
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
        {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !names.contains(&name) || pairs.iter().any(|(known, _)| *known == name) {
                return Err(bad(format!(
                    "`{}` is unknown here or given twice; known: {}",
                    shown(name),
                    names.join(", ")
                )));
            }
            pairs.push((name, value));
        }
        Ok(Self(pairs))
    }

    /// A parameter that may be absent.
    pub(super) fn optional<T: FromStr>(&self, name: &str) -> Result<Option<T>, Refusal> {
        let value = self.0.iter().find(|(known, _)| *known == name);
        value
            .map(|(_, value)| {
                value
                    .parse()
                    .map_err(|_| bad(format!("`{name}={}` cannot be read", shown(value))))
            })
            .transpose()
    }

    /// A parameter that must be there.
    pub(super) fn required<T: FromStr>(&self, name: &str) -> Result<T, Refusal> {
        self.optional(name)?
            .ok_or_else(|| bad(format!("`{name}=` is missing")))
    }
}

/// Reads a capsule's name.
pub(super) fn capsule(text: &str) -> Result<CapsuleName, Refusal> {
    text.parse()
        .map_err(|_| bad("a capsule's name has 64 hexadecimal digits".to_owned()))
}

/// A refusal of what was asked for.
pub(super) fn bad(message: String) -> Refusal {
    Refusal::new(
        400,
        "bad-request",
        format!("{message}; correct the request"),
    )
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

/// Sixteen bytes in hexadecimal digits.
pub(super) struct Hex16(pub(super) [u8; 16]);

impl FromStr for Hex16 {
    type Err = hex::FromHexError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes)?;
        Ok(Self(bytes))
    }
}

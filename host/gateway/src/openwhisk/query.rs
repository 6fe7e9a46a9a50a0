//! Options behind the question mark.

use super::error::WhiskError;
use axum::http::StatusCode;

/// Entries in one list when nobody says how many, and at most.
const LIST: usize = 30;
const LIST_MAX: usize = 200;

/// `name=value&…`; values here are numbers, words and plain names.
pub(super) struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    pub(super) fn of(raw: Option<&'a str>) -> Query<'a> {
        Query(raw.unwrap_or_default())
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        let mut pairs = self.0.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find_map(|(key, value)| (key == name).then_some(value))
    }

    pub(super) fn says(&self, name: &str) -> bool {
        self.get(name) == Some("true")
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, WhiskError> {
        self.get(name)
            .map(|text| {
                text.parse().map_err(|_| {
                    let message = format!("The value '{text}' is not an integer for {name}.");
                    WhiskError::new(StatusCode::BAD_REQUEST, message)
                })
            })
            .transpose()
    }

    /// How many entries of a list to skip and to show.
    pub(super) fn page(&self) -> Result<(usize, usize), WhiskError> {
        let whole = |number: Option<u64>| number.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        let limit = whole(self.number("limit")?).unwrap_or(LIST);
        if limit > LIST_MAX {
            let message =
                format!("The value '{limit}' is not in the range of 0 to {LIST_MAX} for limit.");
            return Err(WhiskError::new(StatusCode::BAD_REQUEST, message));
        }
        // OpenWhisk: none is as many as there may be.
        let limit = if limit == 0 { LIST_MAX } else { limit };
        Ok((whole(self.number("skip")?).unwrap_or(0), limit))
    }
}

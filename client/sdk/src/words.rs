//! Numbers in sentences: one record is gone, two records are gone.

/// So many of something, in words.
pub(crate) fn counted(number: u64, one: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {one}{plural}")
}

/// The verb for so many.
pub(crate) const fn is_or_are(number: u64) -> &'static str {
    match number {
        1 => "is",
        _ => "are",
    }
}

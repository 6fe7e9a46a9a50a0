//! What a file looks like to the model, and what the model's numbers mean.
//!
//! ```text
//! file ──features──▶ 2048 integers ──sealed call──▶ 214 scores ──best──▶ "markdown", 0.98
//! ```
//!
//! The model sees the first and last 1024 bytes of a file, white space at the very ends left out,
//! 256 standing for "no byte" (as the package that ships the model prepares its input).

/// Integers the model takes.
pub const FEATURES: usize = 2048;

const SIDE: usize = FEATURES / 2;
const BLOCK: usize = 4096;
const PADDING: i32 = 256;

/// Turns a file into the model's input.
#[must_use]
pub fn features(file: &[u8]) -> Vec<i32> {
    let space = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0x0b;
    let first = &file[..file.len().min(BLOCK)];
    let first = &first[first.iter().take_while(|byte| space(byte)).count()..];
    let last = &file[file.len() - file.len().min(BLOCK)..];
    let last = &last[..last.len() - last.iter().rev().take_while(|byte| space(byte)).count()];

    let mut features = vec![PADDING; FEATURES];
    for (to, from) in features.iter_mut().zip(first.iter().take(SIDE)) {
        *to = i32::from(*from);
    }
    for (to, from) in features.iter_mut().rev().zip(last.iter().rev().take(SIDE)) {
        *to = i32::from(*from);
    }
    features
}

/// One kind of file the model knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Short name, such as `python`.
    pub name: String,
    /// For people, such as `Python source`.
    pub description: String,
}

/// Reads the label list from the sources of the package that ships the model: the variants of `Label`
/// in order (`model.rs`), and the `TypeInfo` each stands for (`content.rs`). `None` when they do not
/// look like that.
#[must_use]
pub fn labels(model: &str, content: &str) -> Option<Vec<Label>> {
    let field = |body: &str, name: &str| {
        let from = body.find(&format!("{name}: \""))? + name.len() + 3;
        Some(body[from..].split('"').next()?.to_owned())
    };
    let statics: std::collections::BTreeMap<String, Label> = content
        .split("pub(crate) static ")
        .skip(1)
        .filter_map(|item| {
            let (identifier, body) = item.split_once(": TypeInfo = TypeInfo {")?;
            let label = Label {
                name: field(body, "label")?,
                description: field(body, "description")?,
            };
            Some((identifier.to_owned(), label))
        })
        .collect();
    let variants = model.split_once("enum Label {")?.1.split_once('}')?.0;
    variants
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with("//") && !line.starts_with('#') && !line.is_empty())
        .map(|line| {
            statics
                .get(&line.trim_end_matches(',').to_uppercase())
                .cloned()
        })
        .collect()
}

/// The best label and its score.
#[must_use]
pub fn best<'a>(labels: &'a [Label], scores: &[f32]) -> Option<(&'a Label, f32)> {
    let (at, score) = scores
        .iter()
        .enumerate()
        .max_by(|left, right| left.1.total_cmp(right.1))?;
    Some((labels.get(at)?, *score))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_of_a_file_are_seen_without_outer_white_space() {
        let features = features(b"  \nabc\t ");
        assert_eq!(features[..5], [97, 98, 99, 9, 32]);
        assert_eq!(features[FEATURES - 4..], [10, 97, 98, 99]);
        assert_eq!(features[8], PADDING);
        assert_eq!(super::features(b""), vec![PADDING; FEATURES]);
    }

    #[test]
    fn long_files_show_only_their_ends() {
        let file: Vec<u8> = (0..10_000_u32).map(|at| 33 + (at / 1000) as u8).collect();
        let features = features(&file);
        assert_eq!((features[0], features[SIDE - 1]), (33, 34));
        assert_eq!((features[SIDE], features[FEATURES - 1]), (41, 42));
    }

    #[test]
    fn labels_are_read_in_the_order_of_the_variants() {
        let content = r#"
            pub(crate) static _3GP: TypeInfo = TypeInfo { label: "3gp", description: "3GPP", };
            pub(crate) static ACE: TypeInfo = TypeInfo { label: "ace", description: "ACE archive", };
            "#;
        let model = "pub(crate) enum Label {\n    Ace,\n    _3gp,\n}";
        let labels = labels(model, content).unwrap();
        assert_eq!(
            (labels[0].name.as_str(), labels[1].name.as_str()),
            ("ace", "3gp")
        );
        assert_eq!(best(&labels, &[0.1, 0.9]).unwrap().0.description, "3GPP");
        assert!(super::labels("fn main() {}", content).is_none());
    }
}

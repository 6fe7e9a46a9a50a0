//! The commands that a README shows, and what it says they print.
//!
//! In: Markdown. Out: the lines of its `sh` blocks, in order. A line that begins with `# ` is what the command before it
//! prints; what follows two spaces and `# ` behind a command is for people. Always true: what is not understood is a
//! failure, so a README cannot show what nobody tries.

use anyhow::{Context as _, bail, ensure};

/// A command, as it is typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Typed {
    /// The command.
    pub line: String,
    /// What it prints; `…` stands for anything. `None` where the README does not say.
    pub prints: Option<String>,
}

impl Typed {
    /// Whether this is what the README says it prints.
    #[must_use]
    pub fn prints_as_shown(&self, printed: &str) -> bool {
        self.prints
            .as_deref()
            .is_none_or(|shown| is_like(shown, printed.trim_end()))
    }
}

/// Reads all `sh` blocks.
///
/// # Errors
/// There is none, one does not end, or a line is neither a command nor what one prints.
pub fn commands(readme: &str) -> anyhow::Result<Vec<Typed>> {
    let mut found: Vec<Typed> = Vec::new();
    let mut inside = false;
    for line in readme.lines() {
        match (inside, line.trim_end()) {
            (false, "```sh") => inside = true,
            (true, "```") => inside = false,
            (false, _) | (true, "") => {}
            (true, line) => match line.strip_prefix('#') {
                Some(shown) => {
                    let shown = shown
                        .strip_prefix(' ')
                        .context("write `# ` before what is printed")?;
                    let last = found.last_mut().context("what prints this?")?;
                    let prints = last.prints.get_or_insert_default();
                    if !prints.is_empty() {
                        prints.push('\n');
                    }
                    prints.push_str(shown);
                }
                None => {
                    let line = line
                        .split_once("  #")
                        .map_or(line, |(line, _)| line)
                        .trim_end();
                    ensure!(!line.starts_with(' '), "a line that goes on: {line}");
                    let prints = None;
                    found.push(Typed {
                        line: line.to_owned(),
                        prints,
                    });
                }
            },
        }
    }
    if inside {
        bail!("a block of commands does not end");
    }
    ensure!(!found.is_empty(), "no block of commands (```sh)");
    Ok(found)
}

/// Whether a text is like another one in which `…` stands for anything.
fn is_like(shown: &str, printed: &str) -> bool {
    let mut parts = shown.split('…');
    let Some(mut rest) = parts.next().and_then(|first| printed.strip_prefix(first)) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_with_what_they_print_and_without_what_is_for_people() {
        let readme = "Text.\n\n```sh\nnpm install\nbield dev        # elsewhere\nbield call x --body '{ \"a\": 1 }'\n# {\"a\":…}\n# 2\n```\n```toml\n# no\n```\n```sh\nlast\n```\n";
        let typed = commands(readme).unwrap();
        let lines: Vec<&str> = typed.iter().map(|typed| &*typed.line).collect();
        assert_eq!(
            lines,
            [
                "npm install",
                "bield dev",
                "bield call x --body '{ \"a\": 1 }'",
                "last"
            ]
        );
        assert_eq!(typed[2].prints.as_deref(), Some("{\"a\":…}\n2"));
        assert!(
            typed[2].prints_as_shown("{\"a\":17}\n2\n") && typed[3].prints_as_shown("anything")
        );
        assert!(!typed[2].prints_as_shown("{\"a\":17}\n3"));
    }

    #[test]
    fn what_is_not_understood_is_a_failure() {
        for readme in [
            "",
            "```sh\n```",
            "```sh\nls",
            "```sh\n# 1\nls\n```",
            "```sh\nls\n  -l\n```",
            "```sh\nls\n#1\n```",
        ] {
            assert!(commands(readme).is_err(), "{readme}");
        }
    }

    #[test]
    fn an_ellipsis_stands_for_anything_and_nothing_else_does() {
        for (shown, printed, is) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a…", "ab", true),
            ("…b", "ab", true),
            ("a…c…e", "abcde", true),
            ("a…c…e", "ace", true),
            ("a…c…e", "aec", false),
            ("a…a", "a", false),
            ("{\"score\":0.…}", "{\"score\":0.981}", true),
        ] {
            assert_eq!(is_like(shown, printed), is, "{shown} {printed}");
        }
    }
}

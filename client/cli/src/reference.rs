//! The reference of the command line, made from its own help: `docs/cli.md` is compared with it by a test.

use std::fmt::Write as _;

/// The whole reference as Markdown: one section a command.
#[must_use]
pub fn reference() -> String {
    let mut text = String::from(
        "# Command line reference\n\nMade from `bield --help`; a test compares. \
         Change the help, then run `BIELD_FREEZE_DOCS=1 cargo test -p bield-cli`.\n",
    );
    let mut command = crate::command()
        .term_width(COLUMNS)
        .disable_help_subcommand(true);
    command.build();
    section(&mut text, &mut command);
    sections(&mut text, &mut command);
    text
}

/// One section for each command below `command`, and below those.
fn sections(text: &mut String, command: &mut clap::Command) {
    for subcommand in command.get_subcommands_mut() {
        section(text, subcommand);
        sections(text, subcommand);
    }
}

fn section(text: &mut String, command: &mut clap::Command) {
    let name = command.get_bin_name().unwrap_or("bield").to_owned();
    let help = command.render_long_help().to_string();
    let lines: Vec<_> = help.lines().map(str::trim_end).collect();
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "\n## `{name}`\n\n```text\n{}\n```\n",
        lines.join("\n").trim_end()
    );
}

/// Fixed, so that the reference does not depend on somebody's terminal.
const COLUMNS: usize = 100;

//! The reference is what the program says of itself.

use std::path::Path;

#[test]
fn the_reference_is_the_programs_own_help() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
    let now = bield_cli::reference();
    if std::env::var_os("BIELD_FREEZE_DOCS").is_some_and(|set| set == "1") {
        std::fs::write(&path, &now).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == now,
        "docs/cli.md differs from the help: BIELD_FREEZE_DOCS=1 cargo test -p bield-cli writes it"
    );
}

#[test]
fn the_definition_of_the_command_line_is_consistent() {
    bield_cli::command().debug_assert();
}

#[test]
fn every_command_teaches_with_an_example() {
    teaches(&bield_cli::command(), "");
}

fn teaches(command: &clap::Command, above: &str) {
    for command in command.get_subcommands() {
        let help = command.clone().render_long_help().to_string();
        let name = format!("{above}{}", command.get_name());
        let shown =
            help.contains(&format!("bield {name}")) || help.contains(&format!("--json {name}"));
        assert!(shown, "`bield {name} --help` shows no example");
        teaches(command, &format!("{name} "));
    }
}

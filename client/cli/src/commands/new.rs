//! `bield new`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bield_package::PackageName;
use clap::{Args, ValueEnum};
use serde_json::json;

use crate::failure::Failure;
use crate::output::Output;

/// Begin a function
///
/// Writes a folder with a small function that works: its source, what builds it (every version pinned), the
/// interfaces it sees of the world (wit/), bield.toml with its buckets and limits, and a README.md with the commands
/// from here to the first call. A folder or file of that name that is there is left alone.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct New {
    /// What the function and its folder are called: a-z 0-9 . _ - (public)
    name: PackageName,

    /// What it is written in
    #[arg(long, value_enum, default_value_t = Language::Js)]
    lang: Language,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Language {
    /// JavaScript; needs Node 18 or newer with npm
    Js,
    /// C; needs Python 3 with pip, which bring compiler and linker
    C,
    /// Python; needs Python 3.10 or newer with pip
    Python,
    /// Rust; needs rustup, which brings its target wasm32-wasip2
    Rust,
}

impl New {
    pub(crate) fn run(self, output: Output) -> Result<(), Failure> {
        let folder = PathBuf::from(self.name.as_str());
        write(&folder, self.name.as_str(), self.lang).map_err(|error| {
            let what = match error.kind() {
                io::ErrorKind::AlreadyExists => {
                    "it is there already; nothing was written".to_owned()
                }
                _ => error.to_string(),
            };
            Failure::local(format_args!("{}: {what}", folder.display()))
        })?;
        let files: Vec<&str> = files(self.lang).map(|(path, _)| path).collect();
        let text = format!(
            "{name}/\n  {}\n\nnext:\n  cd {name}\n  {}\n\nREADME.md goes on from there.",
            files.join("\n  "),
            self.lang.first_commands().join("\n  "),
            name = self.name.as_str(),
        );
        let shown = json!({
            "folder": folder.display().to_string(),
            "files": files,
            "next": self.lang.first_commands(),
        });
        output.show(&shown, text);
        Ok(())
    }
}

/// Writes everything, or leaves nothing.
fn write(folder: &Path, name: &str, language: Language) -> io::Result<()> {
    fs::create_dir(folder)?;
    let written = files(language).try_for_each(|(path, text)| {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap_or(folder))?;
        fs::write(path, text.replace("{{name}}", name))
    });
    if written.is_err() {
        // Made here a moment ago; what cannot be removed either is named by the error.
        let _ = fs::remove_dir_all(folder);
    }
    written
}

impl Language {
    /// From the folder to a component.
    const fn first_commands(self) -> &'static [&'static str] {
        match self {
            Self::Js => &["npm install", "bield dev --function ."],
            Self::Rust => &["rustup target add wasm32-wasip2", "bield dev --function ."],
            Self::C | Self::Python => &[
                "python3 -m venv .venv && . .venv/bin/activate",
                "pip install -r requirements.txt",
                "bield dev --function .",
            ],
        }
    }
}

/// Paths in the folder and what stands there, `{{name}}` for the name.
fn files(language: Language) -> impl Iterator<Item = (&'static str, &'static str)> {
    let own = match language {
        Language::Js => JAVASCRIPT,
        Language::C => C,
        Language::Python => PYTHON,
        Language::Rust => RUST,
    };
    own.iter().chain(WIT).copied()
}

const JAVASCRIPT: &[(&str, &str)] = &[
    (
        "README.md",
        include_str!("../../templates/javascript/README.md"),
    ),
    (
        "bield.toml",
        include_str!("../../templates/javascript/bield.toml"),
    ),
    (
        "package.json",
        include_str!("../../templates/javascript/package.json"),
    ),
    (
        ".gitignore",
        include_str!("../../templates/javascript/gitignore"),
    ),
    (
        "src/function.js",
        include_str!("../../templates/javascript/src/function.js"),
    ),
    (
        "src/bield/handler.js",
        include_str!("../../templates/javascript/src/bield/handler.js"),
    ),
    (
        "src/bield/kv.js",
        include_str!("../../templates/javascript/src/bield/kv.js"),
    ),
    (
        "src/bield/nn.js",
        include_str!("../../templates/javascript/src/bield/nn.js"),
    ),
    (
        "src/bield/text.js",
        include_str!("../../templates/javascript/src/bield/text.js"),
    ),
];

const C: &[(&str, &str)] = &[
    ("README.md", include_str!("../../templates/c/README.md")),
    ("bield.toml", include_str!("../../templates/c/bield.toml")),
    ("build.sh", include_str!("../../templates/c/build.sh")),
    (
        "requirements.txt",
        include_str!("../../templates/c/requirements.txt"),
    ),
    (".gitignore", include_str!("../../templates/c/gitignore")),
    (
        "src/function.c",
        include_str!("../../templates/c/src/function.c"),
    ),
    ("src/bield.c", include_str!("../../templates/c/src/bield.c")),
    ("src/bield.h", include_str!("../../templates/c/src/bield.h")),
];

const PYTHON: &[(&str, &str)] = &[
    (
        "README.md",
        include_str!("../../templates/python/README.md"),
    ),
    (
        "bield.toml",
        include_str!("../../templates/python/bield.toml"),
    ),
    ("build.sh", include_str!("../../templates/python/build.sh")),
    (
        "requirements.txt",
        include_str!("../../templates/python/requirements.txt"),
    ),
    (
        ".gitignore",
        include_str!("../../templates/python/gitignore"),
    ),
    (
        "src/app.py",
        include_str!("../../templates/python/src/app.py"),
    ),
    (
        "src/bield/__init__.py",
        include_str!("../../templates/python/src/bield/__init__.py"),
    ),
    (
        "src/bield/handler.py",
        include_str!("../../templates/python/src/bield/handler.py"),
    ),
    (
        "src/bield/kv.py",
        include_str!("../../templates/python/src/bield/kv.py"),
    ),
    (
        "src/bield/nn.py",
        include_str!("../../templates/python/src/bield/nn.py"),
    ),
];

const RUST: &[(&str, &str)] = &[
    ("README.md", include_str!("../../templates/rust/README.md")),
    (
        "bield.toml",
        include_str!("../../templates/rust/bield.toml"),
    ),
    (
        "Cargo.toml",
        include_str!("../../templates/rust/cargo.toml"),
    ),
    ("build.sh", include_str!("../../templates/rust/build.sh")),
    (".gitignore", include_str!("../../templates/rust/gitignore")),
    (
        "src/lib.rs",
        include_str!("../../templates/rust/src/lib.rs"),
    ),
    (
        "src/bield.rs",
        include_str!("../../templates/rust/src/bield.rs"),
    ),
];

/// The interfaces that the enclave has; only their text is taken from there.
const WIT: &[(&str, &str)] = &[
    (
        "wit/world.wit",
        include_str!("../../../../enclave/function/wit/world.wit"),
    ),
    (
        "wit/deps/wasi-keyvalue/keyvalue.wit",
        include_str!("../../../../enclave/function/wit/deps/wasi-keyvalue/keyvalue.wit"),
    ),
    (
        "wit/deps/wasi-nn/nn.wit",
        include_str!("../../../../enclave/function/wit/deps/wasi-nn/nn.wit"),
    ),
];

const EXAMPLES: &str = "\
Examples:
  bield new guestbook
  bield new guestbook --lang c
  bield new guestbook --lang python
  bield new guestbook --lang rust";

#[cfg(test)]
mod tests {
    use bield_sdk::{FUNCTION_FILE, FunctionFile};

    use super::*;

    #[test]
    fn a_folder_that_is_there_is_left_alone() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("guestbook");
        write(&folder, "guestbook", Language::Js).unwrap();
        fs::write(folder.join("src/function.js"), "mine").unwrap();
        let again = write(&folder, "guestbook", Language::C).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(
            fs::read_to_string(folder.join("src/function.js")).unwrap(),
            "mine"
        );
        assert!(!folder.join("build.sh").exists());
    }

    #[test]
    fn what_is_written_bears_the_name_and_nothing_to_fill_in() {
        for language in Language::value_variants() {
            let place = tempfile::tempdir().unwrap();
            let folder = place.path().join("guestbook");
            write(&folder, "guestbook", *language).unwrap();
            for (path, _) in files(*language) {
                let text = fs::read_to_string(folder.join(path)).unwrap();
                assert!(!text.is_empty() && !text.contains("{{"), "{path}");
            }
            let settings = fs::read_to_string(folder.join("bield.toml")).unwrap();
            let settings: toml::Table = toml::from_str(&settings).unwrap();
            assert_eq!(settings["function"]["name"].as_str(), Some("guestbook"));
            let watched = settings["function"]["watch"].as_array().unwrap();
            assert!(
                watched
                    .iter()
                    .all(|path| folder.join(path.as_str().unwrap()).is_dir())
            );
        }
    }

    /// Whole folders, so that each can be copied: links are text files where a checkout has none.
    #[test]
    fn examples_hold_what_new_writes_today() {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
        let freeze = std::env::var_os("BIELD_FREEZE_EXAMPLES").is_some_and(|set| set == "1");
        for example in ["cart", "classifier", "counter", "path-search"] {
            let shared = |path: &str| path.starts_with("src/bield/") || path == "package.json";
            let files =
                files(Language::Js).filter(|(path, _)| shared(path) || path.starts_with("wit/"));
            for (path, text) in files {
                let (place, text) = (
                    examples.join(example).join(path),
                    text.replace("{{name}}", example),
                );
                if freeze {
                    fs::write(&place, &text).unwrap();
                }
                let kept = fs::read_to_string(&place).unwrap_or_default();
                assert!(
                    kept == text,
                    "examples/{example}/{path} is not what `bield new` writes: BIELD_FREEZE_EXAMPLES=1 writes it"
                );
            }
        }
    }

    #[test]
    fn what_templates_and_examples_say_of_themselves_is_understood() {
        for language in Language::value_variants() {
            let (_, text) = files(*language)
                .find(|(path, _)| *path == FUNCTION_FILE)
                .unwrap();
            let file = FunctionFile::parse(&text.replace("{{name}}", "guestbook"));
            let file = file.unwrap_or_else(|error| panic!("{language:?}: {error}"));
            assert!(file.build.is_some() && !file.watch.is_empty() && !file.buckets.is_empty());
        }
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
        let mut found = 0;
        for entry in fs::read_dir(examples).unwrap() {
            let folder = entry.unwrap().path();
            if !folder.join(FUNCTION_FILE).exists() {
                continue;
            }
            let (file, _) = FunctionFile::read(&folder).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(
                Some(file.name.as_str()),
                folder.file_name().unwrap().to_str()
            );
            assert!(file.watch.iter().all(|path| folder.join(path).is_dir()));
            found += 1;
        }
        assert_eq!(found, 4);
    }

    #[test]
    fn every_file_of_the_interfaces_is_written() {
        let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../enclave/function/wit");
        let mut found = Vec::new();
        let mut folders = vec![wit.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => found.push(Path::new("wit").join(path.strip_prefix(&wit).unwrap())),
                }
            }
        }
        found.sort();
        let mut written: Vec<PathBuf> = WIT.iter().map(|(path, _)| path.into()).collect();
        written.sort();
        assert_eq!(found, written);
    }
}

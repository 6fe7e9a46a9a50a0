//! Folders are trust zones, dependencies go one way (`ARCHITECTURE.md`).
//!
//! ```text
//! core ◀── enclave      core ◀── host      core ◀── client ◀── examples      all ◀── testing
//! ```
//!
//! Checked from `cargo metadata`: what links into what is shipped may only point along the arrows;
//! inside `core` the order is spelled out, and so is [`RING`], the one bridge between host and enclave; development dependencies may point to `testing` as well,
//! because nothing that is shipped links them.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use cargo_metadata::{DependencyKind, MetadataCommand};

use crate::programs::root;

/// What each core crate may use of core. A crate that is not listed may use nothing.
const CORE: &[(&str, &[&str])] = &[
    ("bield-envelope", &[]),
    ("bield-evidence", &["bield-envelope"]),
    (
        "bield-grant",
        &["bield-envelope", "bield-evidence", "bield-package"],
    ),
    (
        "bield-session",
        &["bield-envelope", "bield-evidence", "bield-grant"],
    ),
    ("bield-package", &["bield-envelope"]),
    ("bield-tlog", &["bield-envelope"]),
    ("bield-capsule", &["bield-envelope"]),
    ("bield-levels", &["bield-envelope", "bield-capsule"]),
    (
        "bield-table",
        &["bield-envelope", "bield-capsule", "bield-levels"],
    ),
    (
        "bield-receipt",
        &[
            "bield-envelope",
            "bield-evidence",
            "bield-grant",
            "bield-session",
            "bield-package",
            "bield-tlog",
            "bield-capsule",
            "bield-table",
        ],
    ),
    (
        "bield-protocol",
        &[
            "bield-envelope",
            "bield-evidence",
            "bield-grant",
            "bield-session",
            "bield-package",
            "bield-tlog",
            "bield-capsule",
            "bield-table",
            "bield-receipt",
        ],
    ),
];

/// Both ends of a ring in shared memory are one piece of code, on either side of the enclave's wall: who may use it
/// on the host's side, and what it is (decision 0014). Tests of the other host crates build the launcher's stand-in program.
const RING: (&str, &str) = ("bield-launcher", "bield-ring");
const RING_IN_TESTS: [&str; 4] = [
    "bield-engines",
    "bield-face",
    "bield-gateway",
    "bield-worker",
];

/// One dependency between two packages of the workspace.
struct Edge {
    from: String,
    to: String,
    shipped: bool,
}

/// Checks the workspace; fails with every violation.
pub(crate) fn run() -> Result<()> {
    let mut command = MetadataCommand::new();
    let metadata = command
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .exec()?;
    let zones: BTreeMap<String, String> = metadata
        .packages
        .iter()
        .filter_map(|package| {
            let folder = package
                .manifest_path
                .strip_prefix(&metadata.workspace_root)
                .ok()?;
            Some((package.name.to_string(), folder.iter().next()?.to_owned()))
        })
        .collect();
    let mut edges = Vec::new();
    for package in &metadata.packages {
        for dependency in &package.dependencies {
            if zones.contains_key(&dependency.name) {
                let shipped = dependency.kind != DependencyKind::Development;
                edges.push(Edge {
                    from: package.name.to_string(),
                    to: dependency.name.clone(),
                    shipped,
                });
            }
        }
    }
    let found = violations(&zones, &edges);
    if found.is_empty() {
        println!(
            "layers: {} packages, {} dependencies between them, all one way",
            zones.len(),
            edges.len()
        );
        return Ok(());
    }
    bail!("dependencies against the layers:\n  {}", found.join("\n  "))
}

fn violations(zones: &BTreeMap<String, String>, edges: &[Edge]) -> Vec<String> {
    edges
        .iter()
        .filter_map(|edge| violation(zones, edge))
        .collect()
}

/// Says what is wrong with a dependency, if anything is.
fn violation(zones: &BTreeMap<String, String>, edge: &Edge) -> Option<String> {
    let (from, to) = (
        zones.get(&edge.from)?.as_str(),
        zones.get(&edge.to)?.as_str(),
    );
    let allowed = match (from, to) {
        ("testing", _) => true,
        (_, "testing") => !edge.shipped,
        ("core", "core") => edge.from == edge.to || order_allows(&edge.from, &edge.to),
        ("enclave" | "host" | "client" | "examples", "core") | ("examples", "client") => true,
        ("host", "enclave") => {
            let in_tests = !edge.shipped && RING_IN_TESTS.contains(&&*edge.from);
            (&*edge.from, &*edge.to) == RING || in_tests && edge.to == RING.1
        }
        ("xtask", _) => false,
        (from, to) => from == to && from != "examples",
    };
    let kind = if edge.shipped {
        "depends on"
    } else {
        "depends for its tests on"
    };
    (!allowed).then(|| format!("{} ({from}) {kind} {} ({to})", edge.from, edge.to))
}

fn order_allows(from: &str, to: &str) -> bool {
    CORE.iter()
        .any(|(name, allowed)| *name == from && allowed.contains(&to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(from: &str, to: &str, shipped: bool) -> bool {
        let zones = [
            ("bield-envelope", "core"),
            ("bield-grant", "core"),
            ("bield-unlisted", "core"),
            ("bield-keys", "enclave"),
            ("bield-door", "enclave"),
            ("bield-ring", "enclave"),
            ("bield-gateway", "host"),
            ("bield-launcher", "host"),
            ("bield-cli", "client"),
            ("bield-software-tee", "testing"),
            ("file-type", "examples"),
            ("xtask", "xtask"),
        ];
        let zones = zones
            .map(|(name, zone)| (name.to_owned(), zone.to_owned()))
            .into();
        let edge = Edge {
            from: from.into(),
            to: to.into(),
            shipped,
        };
        violations(&zones, &[edge]).is_empty()
    }

    #[test]
    fn dependencies_along_the_arrows_pass() {
        for (from, to) in [
            ("bield-grant", "bield-envelope"),
            ("bield-keys", "bield-grant"),
            ("bield-keys", "bield-door"),
            ("bield-gateway", "bield-envelope"),
            ("bield-launcher", "bield-ring"),
            ("bield-software-tee", "bield-keys"),
            ("file-type", "bield-cli"),
        ] {
            assert!(check(from, to, true), "{from} -> {to}");
        }
    }

    #[test]
    fn dependencies_against_the_arrows_are_found() {
        for (from, to) in [
            ("bield-envelope", "bield-grant"),
            ("bield-unlisted", "bield-envelope"),
            ("bield-envelope", "bield-keys"),
            ("bield-gateway", "bield-keys"),
            ("bield-gateway", "bield-ring"),
            ("bield-launcher", "bield-door"),
            ("bield-cli", "bield-gateway"),
            ("bield-keys", "bield-cli"),
            ("bield-cli", "bield-software-tee"),
            ("bield-cli", "file-type"),
            ("xtask", "bield-envelope"),
        ] {
            assert!(!check(from, to, true), "{from} -> {to}");
        }
    }

    #[test]
    fn only_tests_may_use_testing() {
        assert!(check("bield-gateway", "bield-ring", false));
        assert!(check("bield-grant", "bield-software-tee", false));
        assert!(!check("bield-grant", "bield-software-tee", true));
        assert!(
            !check("bield-gateway", "bield-keys", false),
            "not even in tests"
        );
    }
}

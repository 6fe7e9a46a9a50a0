//! Which sealed code lies on the host's storage, and when it was used last, so that what nobody uses goes.
//!
//! ```text
//! code-uses: "code-… day" a line ─ a use ─▶ today ─▶ too old, or too many: the file is removed
//! ```
//!
//! In: names of code files that are used. Out: removals. Always true: at most [`FILES_MAX`] code files stay, none that was
//! not used for [`DAYS_MAX`] days; a file that the list does not know, of an earlier release or a list that was lost, counts
//! as used today. The host writes the list and its clock says the day: what it forges costs a compilation, since what is gone
//! is compiled anew.

use std::collections::BTreeMap;

use bield_ledger::{Files, FilesError};

/// Code files that stay.
const FILES_MAX: usize = 128;
/// Days after which unused code goes.
const DAYS_MAX: u64 = 30;
/// The list.
const USES: &str = "code-uses";
/// What code files are called.
const CODE: &str = "code-";
/// The longest list that is read, in bytes.
const USES_BYTES_MAX: u64 = 64 << 10;

/// Notes that a code file is used on the day `today`, counted from 1970, and removes what nobody uses.
///
/// # Errors
/// The host does not store; what is not removed now is with a later use.
pub(super) fn note(files: &mut dyn Files, name: &str, today: u64) -> Result<(), FilesError> {
    let text = files.read(USES, 0, USES_BYTES_MAX)?;
    let known = parse(&text);
    if known.get(name) == Some(&today) {
        return Ok(());
    }
    let listed = files.list()?.into_iter().map(|(file, _)| file);
    let there = listed.filter(|file| file.starts_with(CODE) && file != USES);
    let mut uses: BTreeMap<String, u64> = there
        .map(|file| {
            let day = known.get(&file).copied().unwrap_or(today);
            (file, day.min(today))
        })
        .collect();
    uses.insert(name.to_owned(), today);
    let mut by_age: Vec<(u64, String)> = uses
        .iter()
        .filter(|(file, _)| *file != name)
        .map(|(file, day)| (*day, file.clone()))
        .collect();
    by_age.sort_unstable();
    let over = uses.len().saturating_sub(FILES_MAX);
    let is_old = |day: u64| day.saturating_add(DAYS_MAX) < today;
    let going = by_age.into_iter().enumerate();
    for (_, (_, file)) in going.filter(|(number, (day, _))| *number < over || is_old(*day)) {
        files.remove(&file)?;
        uses.remove(&file);
    }
    let lines = uses.iter().map(|(file, day)| format!("{file} {day}\n"));
    files.replace(USES, lines.collect::<String>().as_bytes())
}

fn parse(text: &[u8]) -> BTreeMap<String, u64> {
    let text = String::from_utf8_lossy(text);
    let line = |line: &str| {
        let (file, day) = line.split_once(' ')?;
        Some((file.to_owned(), day.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use bield_ledger::MemoryFiles;

    use super::*;

    fn use_code(disk: &MemoryFiles, name: &str, today: u64) {
        disk.alter(name, |bytes| *bytes = vec![1; 10]);
        note(&mut disk.clone(), name, today).unwrap();
    }

    fn code(disk: &MemoryFiles) -> Vec<String> {
        let names = disk.contents().into_keys();
        names.filter(|name| name != USES).collect()
    }

    #[test]
    fn code_that_is_not_used_for_a_month_goes_and_nothing_else() {
        let disk = MemoryFiles::new();
        disk.alter("other-log-1", |bytes| bytes.push(1));
        use_code(&disk, "code-old", 100);
        use_code(&disk, "code-used", 100);
        for day in [115, 129] {
            use_code(&disk, "code-used", day);
        }
        use_code(&disk, "code-new", 130);
        assert_eq!(
            code(&disk),
            ["code-new", "code-old", "code-used", "other-log-1"]
        );
        use_code(&disk, "code-new", 131);
        assert_eq!(code(&disk), ["code-new", "code-used", "other-log-1"]);
    }

    #[test]
    fn ever_new_functions_keep_a_bounded_number_of_files() {
        let disk = MemoryFiles::new();
        for number in 0..3 * FILES_MAX as u64 {
            use_code(&disk, &format!("code-{number:04}"), 10 + number / 100);
            assert!(code(&disk).len() <= FILES_MAX);
        }
        let newest = format!("code-{:04}", 3 * FILES_MAX - 1);
        assert!(code(&disk).contains(&newest));
        let list = &disk.contents()[USES];
        assert!((list.len() as u64) < USES_BYTES_MAX, "{}", list.len());
    }

    #[test]
    fn a_list_that_is_lost_or_forged_costs_code_and_nothing_else() {
        let disk = MemoryFiles::new();
        for name in ["code-a", "code-b"] {
            use_code(&disk, name, 50);
        }
        for forged in [&b""[..], b"\xff\x00 ??", b"code-a 99999999999\ncode-b -1\n"] {
            disk.alter(USES, |bytes| *bytes = forged.to_vec());
            use_code(&disk, "code-c", 60);
            assert_eq!(code(&disk), ["code-a", "code-b", "code-c"]);
        }
        // A clock that was set back forgets nothing.
        use_code(&disk, "code-c", 1);
        assert_eq!(code(&disk).len(), 3);
    }
}

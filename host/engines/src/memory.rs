//! What processes take of memory, and a limit on it where this user may set one.
//!
//! A limit is a control group of its own below this process's, made before the program starts and removed when this value
//! goes: of version 1 where the memory controller has a hierarchy of its own, else of version 2. There a group hands the
//! controller down only while it has no process itself, so that this process moves into a group below its own first
//! (`bield-PID-host`, which stays until the next start finds its process gone); with others beside it, as in a login
//! session, that does not help. Where no limit can be set, there is a sentence that says why and what to do. What is in
//! swap is not counted.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// Gives each place's process at most this much memory.
pub struct MemoryLimit {
    /// This process's own group.
    own: PathBuf,
    /// The file of the limit.
    file: &'static str,
    bytes: u64,
}

impl MemoryLimit {
    /// Finds out how to limit memory here, by making a group and removing it.
    ///
    /// # Errors
    /// Why it is not possible, in a sentence.
    pub fn new(bytes: u64) -> Result<std::sync::Arc<Self>, String> {
        let groups = fs::read_to_string("/proc/self/cgroup");
        let mounts = fs::read_to_string("/proc/self/mountinfo");
        let (Ok(groups), Ok(mounts)) = (groups, mounts) else {
            return Err("this system has no control groups".to_owned());
        };
        let (own, file) = own_group(&groups, &mounts)
            .ok_or("no memory controller of control groups is mounted here")?;
        let limit = Self { own, file, bytes };
        limit.sweep();
        let mut tried = limit.try_one();
        if tried.is_err() && file == V2_FILE {
            tried = limit.hand_down().and_then(|()| limit.try_one());
        }
        match tried {
            Ok(()) => Ok(std::sync::Arc::new(limit)),
            Err(error) => Err(limit.cannot(&error)),
        }
    }

    /// Makes a group with the limit and removes it.
    fn try_one(&self) -> io::Result<()> {
        let probe = self.directory("probe");
        let made = self.make(&probe);
        let _ = fs::remove_dir(&probe);
        made
    }

    fn cannot(&self, error: &io::Error) -> String {
        let own = self.own.display();
        let what_to_do = match self.file {
            V2_FILE => {
                "start the gateway alone in a group that is handed to its user, as systemd does with Delegate=yes in the \
                 unit, or for a trial `systemd-run --user --scope -p Delegate=yes`"
            }
            _ => {
                "give the gateway's user a group of its own in the memory hierarchy, and start it there"
            }
        };
        format!(
            "control group {own} cannot limit the memory of groups below it: {error}; {what_to_do}"
        )
    }

    /// The control group of a place, made if need be.
    #[must_use]
    pub fn place(&self, place: u32) -> Option<PathBuf> {
        let directory = self.directory(&place.to_string());
        match self.make(&directory) {
            Ok(()) => Some(directory),
            Err(error) => {
                tracing::warn!(place, %error, "the memory of this worker is not limited");
                None
            }
        }
    }

    /// Version 2: hands the memory controller to groups below, for which this process leaves its group.
    fn hand_down(&self) -> io::Result<()> {
        let control = self.own.join("cgroup.subtree_control");
        if write_to(&control, "+memory").is_ok() {
            return Ok(());
        }
        let host = self.directory(HOST);
        match fs::create_dir(&host) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let own_id = std::process::id().to_string();
        let moved = write_to(&host.join("cgroup.procs"), &own_id);
        moved
            .and_then(|()| write_to(&control, "+memory"))
            .inspect_err(|_| {
                let _ = write_to(&self.own.join("cgroup.procs"), &own_id);
                let _ = fs::remove_dir(&host);
            })
    }

    /// Removes what processes left that are gone. What is still in use stays: the kernel does not remove it.
    fn sweep(&self) {
        for entry in fs::read_dir(&self.own).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let of = name.to_str().and_then(process_of);
            if of.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
                let _ = fs::remove_dir(entry.path());
            }
        }
    }

    fn directory(&self, name: &str) -> PathBuf {
        let name = format!("bield-{}-{name}", std::process::id());
        self.own.join(name)
    }

    fn make(&self, directory: &Path) -> io::Result<()> {
        match fs::create_dir(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        write_to(&directory.join(self.file), &self.bytes.to_string())
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        let ours = format!("bield-{}-", std::process::id());
        for entry in fs::read_dir(&self.own).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&ours) {
                // One that a process is still leaving stays; it is empty then.
                let _ = fs::remove_dir(entry.path());
            }
        }
    }
}

/// Where this process is when it has left its own group.
const HOST: &str = "host";

/// Writes to a file that is there. Where it is not, the controller is not either.
fn write_to(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::File::options().write(true).open(path)?;
    io::Write::write_all(&mut file, text.as_bytes())
}

/// The process that made the group of this name.
fn process_of(name: &str) -> Option<u32> {
    let (pid, _) = name.strip_prefix("bield-")?.split_once('-')?;
    pid.parse().ok()
}

const V1_FILE: &str = "memory.limit_in_bytes";
const V2_FILE: &str = "memory.max";

/// The directory of this process's group in the hierarchy that limits memory, and the file of the limit there; of
/// `/proc/self/cgroup` (`number:controllers:path`) and `/proc/self/mountinfo`.
fn own_group(groups: &str, mounts: &str) -> Option<(PathBuf, &'static str)> {
    let path_of = |wanted: &dyn Fn(&str) -> bool| {
        groups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let controllers = fields.next()?;
            wanted(controllers).then_some(fields.next()?)
        })
    };
    // `… mount point … - type source options`, with the mounted root and the mount point as fields 4 and 5.
    let mounted = |kind: &str, option: Option<&str>| {
        mounts.lines().find_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let mut after = after.split(' ');
            let is_kind = after.next() == Some(kind);
            let has_option = option.is_none_or(|wanted| {
                after
                    .nth(1)
                    .is_some_and(|o| o.split(',').any(|o| o == wanted))
            });
            let mut before = before.split(' ').skip(3);
            let (root, point) = (before.next()?, before.next()?);
            (is_kind && has_option).then_some((root, point))
        })
    };
    let below = |path: &str, (root, point): (&str, &str)| {
        let relative = Path::new(path).strip_prefix(root).ok()?;
        // A namespace shows what is outside of it as `/..`, which cannot be reached from inside.
        let is_inside = !relative
            .components()
            .any(|part| part == Component::ParentDir);
        is_inside.then(|| Path::new(point).join(relative))
    };
    let v1 = path_of(&|controllers| controllers.split(',').any(|name| name == "memory"))
        .zip(mounted("cgroup", Some("memory")))
        .and_then(|(path, mount)| Some((below(path, mount)?, V1_FILE)));
    v1.or_else(|| {
        let path = path_of(&str::is_empty)?;
        Some((below(path, mounted("cgroup2", None)?)?, V2_FILE))
    })
}

/// Bytes of a process that are in RAM (`VmRSS` of `/proc/PID/status`); shared ones count in full.
pub(crate) fn resident_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_control_groups_are_found() {
        let v1 = own_group(
            "5:cpu,cpuacct:/a\n4:memory:/user/7\n0::/\n",
            "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
             41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n",
        );
        assert_eq!(v1, Some(("/sys/fs/cgroup/memory/user/7".into(), V1_FILE)));
        let v2 = own_group(
            "0::/system.slice/bield.service\n",
            "41 31 0:38 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
        );
        let path = "/sys/fs/cgroup/system.slice/bield.service";
        assert_eq!(v2, Some((path.into(), V2_FILE)));
        // Inside a container only a part of the hierarchy is mounted.
        let part = own_group(
            "4:memory:/docker/1/x\n",
            "35 31 0:32 /docker/1 /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
        );
        assert_eq!(part, Some(("/sys/fs/cgroup/memory/x".into(), V1_FILE)));
        assert_eq!(own_group("0::/\n", ""), None);
    }

    #[test]
    fn a_group_that_is_elsewhere_is_not_taken_for_this_ones() {
        let mount = "35 31 0:32 /docker/1 /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        assert_eq!(own_group("4:memory:/docker/12\n", mount), None);
        let mount = "41 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(own_group("0::/../other.scope\n", mount), None);
    }

    #[test]
    fn what_is_no_control_group_is_left_as_it_is_and_said_to_be_none() {
        let directory = tempfile::tempdir().unwrap();
        for file in [V1_FILE, V2_FILE] {
            let limit = MemoryLimit {
                own: directory.path().to_owned(),
                file,
                bytes: 1 << 30,
            };
            let error = limit.try_one().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
            limit.hand_down().unwrap_err();
            let left: Vec<_> = fs::read_dir(directory.path()).unwrap().collect();
            assert!(left.is_empty(), "{left:?}");
            let why = limit.cannot(&error);
            assert_eq!(why.contains("Delegate=yes"), file == V2_FILE, "{why}");
        }
    }

    #[test]
    fn groups_of_processes_that_are_gone_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let own = directory.path().to_owned();
        let mine = format!("bield-{}-0", std::process::id());
        for name in [&mine, "bield-4294967295-0", "bield-x-0", "other"] {
            fs::create_dir(own.join(name)).unwrap();
        }
        let limit = MemoryLimit {
            own,
            file: V2_FILE,
            bytes: 1,
        };
        limit.sweep();
        let there = |name: &str| directory.path().join(name).exists();
        assert!(there(&mine) && there("bield-x-0") && there("other"));
        assert!(!there("bield-4294967295-0"));
    }

    #[test]
    fn what_this_process_takes_is_told() {
        let bytes = resident_bytes(std::process::id()).unwrap();
        assert!((100_000..1 << 40).contains(&bytes), "{bytes}");
        assert_eq!(resident_bytes(u32::MAX), None);
    }
}

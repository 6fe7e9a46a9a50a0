//! What processes take of memory, and a limit on it where this user may set one.
//!
//! A limit is a control group of its own below this process's, made before the program starts and removed when this value
//! goes: of version 1 where the memory controller has a hierarchy of its own, else of version 2 where it can be handed
//! down. Where neither can be written, there is no limit and a sentence that says why. What is in swap is not counted.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

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
        limit.hand_down();
        let probe = limit.directory("probe");
        let made = limit.make(&probe);
        let _ = fs::remove_dir(&probe);
        match made {
            Ok(()) => Ok(std::sync::Arc::new(limit)),
            Err(error) => Err(format!(
                "control group {} cannot limit memory: {error}; give this user a group of its own with the memory controller",
                probe.display()
            )),
        }
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

    /// Version 2 gives a controller to groups below only when told to, and not while this group has processes itself.
    fn hand_down(&self) {
        if self.file == V2_FILE {
            let _ = fs::write(self.own.join("cgroup.subtree_control"), "+memory");
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
        // Opened, not made: where the file is not there, the controller is not either.
        let mut file = fs::File::options()
            .write(true)
            .open(directory.join(self.file))?;
        io::Write::write_all(&mut file, self.bytes.to_string().as_bytes())
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
        let relative = path.strip_prefix(root.trim_end_matches('/'))?;
        Some(Path::new(point).join(relative.trim_start_matches('/')))
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
    fn what_this_process_takes_is_told() {
        let bytes = resident_bytes(std::process::id()).unwrap();
        assert!((100_000..1 << 40).contains(&bytes), "{bytes}");
        assert_eq!(resident_bytes(u32::MAX), None);
    }
}

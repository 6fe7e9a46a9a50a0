//! The gateway's status page in a real browser: what is drawn, that nothing is loaded from elsewhere, and how it looks.
//!
//! Screenshots are kept as `target/tmp/status-page-WIDTH.png`.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use bield_end_to_end::{Stack, numbers, wait_until};
use bield_sdk::Gateway;
use serde_json::Value;
use tempfile::TempDir;

/// What Chromium is called by its packagers.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// A browser with a profile of its own, which finds nothing but this machine.
struct Browser {
    program: PathBuf,
    profile: TempDir,
}

impl Browser {
    fn find() -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let directories: Vec<PathBuf> = std::env::split_paths(&path).collect();
        let mut programs = NAMES
            .iter()
            .flat_map(|name| directories.iter().map(move |at| at.join(name)));
        let found = programs.find(|program| program.is_file());
        Self {
            program: found
                .expect("no Chromium on the path: install it with `apt-get install chromium`"),
            profile: TempDir::new().unwrap(),
        }
    }

    /// Opens `url` for some seconds of the page's own time, and does what the arguments say.
    fn open(&self, url: &str, arguments: &[&str]) -> Output {
        let output = Command::new(&self.program)
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
            ])
            .args(["--disable-background-networking", "--hide-scrollbars"])
            .args([
                "--enable-logging=stderr",
                "--log-level=0",
                "--virtual-time-budget=8000",
            ])
            .arg("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
            .arg(format!("--user-data-dir={}", self.profile.path().display()))
            .args(arguments)
            .arg(url)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        output
    }

    /// The page after its scripts ran, what it said on its console, and what it asked for.
    fn dump(&self, url: &str) -> (String, Vec<String>, Vec<String>) {
        let log = self.profile.path().join("net.json");
        let logs = format!("--log-net-log={}", log.display());
        let output = self.open(url, &["--dump-dom", &logs]);
        let said = String::from_utf8_lossy(&output.stderr);
        let console = said.lines().filter(|line| line.contains("CONSOLE"));
        let page = String::from_utf8(output.stdout).unwrap();
        (page, console.map(str::to_owned).collect(), asked(&log))
    }

    fn screenshot(&self, url: &str, width: u32, height: u32, dark: bool) -> PathBuf {
        let name = format!("status-page-{width}{}.png", if dark { "-dark" } else { "" });
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = std::fs::remove_file(&file);
        let (size, shot) = (
            format!("--window-size={width},{height}"),
            format!("--screenshot={}", file.display()),
        );
        let mut arguments = vec![size.as_str(), shot.as_str()];
        if dark {
            arguments.push("--force-dark-mode");
        }
        self.open(url, &arguments);
        file
    }
}

/// Addresses that pages asked for; not those the browser asks for of its own accord.
fn asked(log: &Path) -> Vec<String> {
    let log: Value = serde_json::from_slice(&std::fs::read(log).unwrap()).unwrap();
    let events = log["events"].as_array().unwrap().iter();
    let of_page = events.filter_map(|event| {
        let initiator = event["params"]["initiator"].as_str()?;
        let url = event["params"]["url"].as_str()?;
        (initiator != "not an origin").then(|| url.to_owned())
    });
    of_page.collect()
}

#[test]
fn the_page_draws_the_pool_and_loads_nothing_from_elsewhere() {
    let stack = Stack::start().unwrap();
    let (_, user, package) = stack.cast("page").unwrap();
    for _ in 0..5 {
        user.call(&package, numbers(1)).unwrap().unwrap();
    }
    // Points of the series are told when they are over.
    let gateway = Gateway::new(&stack.gateway.url);
    let drawn = |status: &Value| {
        let points = status["pool"]["series"]["points"].as_array();
        let points = points.map_or(&[][..], Vec::as_slice);
        let sum = |kind: &str| points.iter().filter_map(|point| point[kind].as_u64()).sum();
        let sums: [u64; 2] = ["cold", "hot"].map(sum);
        sums == [1, 4]
    };
    let told = wait_until(Duration::from_secs(60), || {
        gateway.status().is_ok_and(|status| drawn(&status))
    });
    assert!(told, "{:#}", gateway.status().unwrap());

    let url = format!("{}/", stack.gateway.url);
    let browser = Browser::find();
    let (page, console, asked) = browser.dump(&url);
    assert!(console.is_empty(), "{console:?}\n{page}");
    assert!(page.contains(r#"data-shown="yes""#), "{page}");
    let digest = package.digest.to_string();
    let short = format!(r#"title="{digest}">{}…<"#, &digest[..10]);
    // Resident in the worker, and listed as a package.
    assert_eq!(page.matches(&short).count(), 2, "{page}");
    for there in [
        "software TEE: no hardware protection</p>",
        "policy bield",
        ">1 of 1</b><span>worker</span>",
        ">5</b><span>answered</span>",
        "<td>bield-runtime</td>",
        "<td>bield-keys</td>",
        r#"<rect class="c-hot""#,
        r#"<rect class="c-cold""#,
        r#"<path class="curve c-a" d="M"#,
        r#"<span class="state ok">serving</span>"#,
    ] {
        assert!(page.contains(there), "{there}\n{page}");
    }
    assert!(
        page.contains(r#"id="trouble" role="alert" hidden"#),
        "{page}"
    );
    assert!(!page.contains(r#"id="simulated" hidden"#), "{page}");

    // It asked for its status, and for that alone.
    let status = format!("{url}v1/status");
    assert!(asked.contains(&status), "{asked:?}");
    assert!(asked.iter().all(|url| *url == status), "{asked:?}");

    for (width, height, dark) in [(1200, 1750, false), (1200, 1750, true), (400, 2600, false)] {
        let file = browser.screenshot(&url, width, height, dark);
        eprintln!("screenshot: {}", file.display());
        let picture = std::fs::read(&file).unwrap();
        // Width and height stand at fixed places of a PNG.
        let number = |at: usize| u32::from_be_bytes(picture[at..at + 4].try_into().unwrap());
        assert_eq!((number(16), number(20)), (width, height));
    }
}

#[test]
fn the_browser_tells_what_the_test_looks_for() {
    // Were errors and requests of pages not seen, the other test could not fail.
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("page.html");
    let page = r#"<script>fetch("http://127.0.0.1:9/elsewhere"); nothing.there</script>"#;
    std::fs::write(&file, page).unwrap();
    let (_, console, asked) = Browser::find().dump(&format!("file://{}", file.display()));
    assert!(
        console
            .iter()
            .any(|line| line.contains("nothing is not defined")),
        "{console:?}"
    );
    assert!(
        asked.contains(&"http://127.0.0.1:9/elsewhere".to_owned()),
        "{asked:?}"
    );
}

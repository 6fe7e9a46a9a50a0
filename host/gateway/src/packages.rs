//! `/v1/packages/<digest>`: sealed packages on disk.
//!
//! ```text
//! PUT ─frames─▶ .upload-<pid>-<n> ─head read: digest and length right?─▶ fsync ─rename─▶ <digest>.bield
//!                                                                          └─ there already ─▶ compare
//! ```
//!
//! Always true: a file named by a digest has the head with that digest and its full length, and no upload
//! replaces it. Whether each chunk is genuine only a runtime with the key can tell, so the first complete
//! upload stays; if that was a bad one, the operator removes the file. One gateway uses a directory.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, ErrorKind, Seek as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{Path as FromPath, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bield_envelope::Digest;
use bield_face::{Refusal, json_response};
use bield_package::PackageHead;
use futures_util::{StreamExt as _, stream};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::GatewayError;
use crate::http::Face;

/// Longest silence within an upload.
const FRAME_WAIT: Duration = Duration::from_secs(30);
/// Bytes read from disk at once for a download.
const DOWNLOAD_BYTES: usize = 256 * 1024;
/// Bytes compared at once with a package that is there already.
const COMPARE_BYTES: usize = 256 * 1024;
/// Time an upload may take, beside what its bytes earn it.
const UPLOAD_GRACE: Duration = Duration::from_secs(60);
/// Bytes that earn an upload one more second: 1 Mbit/s on average, a slow line.
const UPLOAD_BYTES_PER_SECOND: u64 = 128 * 1024;
/// Start of the names of unfinished uploads.
const UNFINISHED: &str = ".upload-";

/// Makes the directory and removes what uploads left behind when the gateway was killed.
pub(crate) fn prepare(directory: &Path) -> Result<(), GatewayError> {
    let refuse = |error| GatewayError::File {
        path: directory.to_owned(),
        error,
    };
    std::fs::create_dir_all(directory).map_err(refuse)?;
    for entry in directory.read_dir().map_err(refuse)? {
        let entry = entry.map_err(refuse)?;
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            std::fs::remove_file(entry.path()).map_err(refuse)?;
        }
    }
    Ok(())
}

/// `PUT`: stores a package under its digest.
pub(crate) async fn upload(
    State(face): State<Face>,
    FromPath(digest): FromPath<String>,
    body: Body,
) -> Result<Response, Refusal> {
    let digest = parse(&digest)?;
    if face.is_draining() {
        return Err(Refusal::unavailable(
            "draining",
            "this gateway is stopping; upload to another one",
        ));
    }
    let _turn = face.uploads.try_acquire().map_err(|_| {
        Refusal::new(
            StatusCode::TOO_MANY_REQUESTS,
            "uploads-full",
            "all upload places are taken; come back shortly",
        )
        .retry_after(Duration::from_secs(5))
    })?;
    let directory = face.packages.to_path_buf();
    let number = face.upload_number.fetch_add(1, Ordering::Relaxed);
    let unfinished = Unfinished {
        path: directory.join(format!("{UNFINISHED}{}-{number}", std::process::id())),
    };

    let bytes = receive(
        body,
        &unfinished.path,
        face.arguments.package_gib.saturating_mul(1 << 30),
        UPLOAD_GRACE,
    )
    .await?;
    let kept = tokio::task::spawn_blocking(move || keep(&unfinished, &directory, &digest));
    let kept = kept
        .await
        .map_err(|_| Refusal::unavailable("stopping", "this gateway is stopping"))??;
    tracing::info!(package = digest.short(), bytes, outcome = ?kept, "package uploaded");
    let status = match kept {
        Outcome::Stored => StatusCode::CREATED,
        Outcome::AlreadyThere => StatusCode::OK,
    };
    Ok(json_response(
        status,
        &json!({ "package": digest.to_string(), "bytes": bytes }),
    ))
}

/// `GET` and `HEAD`: a stored package.
pub(crate) async fn download(
    State(face): State<Face>,
    FromPath(digest): FromPath<String>,
) -> Result<Response, Refusal> {
    let digest = parse(&digest)?;
    let path = face.packages.join(format!("{digest}.bield"));
    let file = match tokio::fs::File::open(&path).await {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Refusal::new(
                StatusCode::NOT_FOUND,
                "no-such-package",
                "no package with this digest is here; upload it with PUT to the same path",
            ));
        }
        Err(error) => return Err(disk(&error)),
    };
    let length = file.metadata().await.map_err(|error| disk(&error))?.len();
    let chunks = stream::unfold(file, async |mut file| {
        let mut chunk = vec![0; DOWNLOAD_BYTES];
        match file.read(&mut chunk).await {
            Ok(0) => None,
            Ok(count) => {
                chunk.truncate(count);
                Some((Ok(Bytes::from(chunk)), file))
            }
            Err(error) => Some((Err(error), file)),
        }
    });
    let kind = HeaderValue::from_static("application/vnd.bield.package");
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_LENGTH, length.into()),
    ];
    Ok((headers, Body::from_stream(chunks)).into_response())
}

fn parse(digest: &str) -> Result<Digest, Refusal> {
    let refuse = || {
        Refusal::new(
            StatusCode::BAD_REQUEST,
            "not-a-digest",
            "a package is named by its digest, 64 hexadecimal digits",
        )
    };
    let parsed: Digest = digest.parse().map_err(|_| refuse())?;
    // One name per package: the form that becomes the file's name.
    if parsed.to_string() == digest {
        Ok(parsed)
    } else {
        Err(refuse())
    }
}

/// Time that an upload of which this many bytes arrived may have taken.
fn time_for(bytes: u64, grace: Duration) -> Duration {
    grace + Duration::from_secs(bytes / UPLOAD_BYTES_PER_SECOND)
}

/// Writes the body to a file; returns its length. One that trickles is cut: it holds one of few places.
async fn receive(body: Body, path: &Path, bytes_max: u64, grace: Duration) -> Result<u64, Refusal> {
    let mut file = tokio::fs::File::create(path)
        .await
        .map_err(|error| disk(&error))?;
    let began = Instant::now();
    let mut frames = body.into_data_stream();
    let mut bytes = 0u64;
    loop {
        let left = time_for(bytes, grace).saturating_sub(began.elapsed());
        let frame = tokio::time::timeout(left.min(FRAME_WAIT), frames.next()).await;
        let frame = match frame {
            Ok(Some(Ok(frame))) if !left.is_zero() => frame,
            Ok(None) => break,
            Ok(Some(_)) | Err(_) => {
                return Err(Refusal::new(
                    StatusCode::REQUEST_TIMEOUT,
                    "upload-cut",
                    "the upload broke off, stalled or was slower than 1 Mbit/s; send it again",
                )
                .retry_after(Duration::from_secs(1)));
            }
        };
        bytes += frame.len() as u64;
        if bytes > bytes_max {
            return Err(Refusal::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too-long",
                format!(
                    "the package is longer than the {} GiB this gateway takes",
                    bytes_max >> 30
                ),
            ));
        }
        file.write_all(&frame).await.map_err(|error| disk(&error))?;
    }
    file.flush().await.map_err(|error| disk(&error))?;
    Ok(bytes)
}

/// Checks an upload and gives it its name.
fn keep(unfinished: &Unfinished, directory: &Path, digest: &Digest) -> Result<Outcome, Refusal> {
    let invalid =
        |code, message: String| Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, code, message);
    let mut file = File::open(&unfinished.path).map_err(|error| disk(&error))?;
    let head = PackageHead::read(&mut file)
        .map_err(|error| invalid("not-a-package", error.to_string()))?;
    if head.digest() != *digest {
        let message = format!(
            "this package has the digest {}; upload it under that name",
            head.digest()
        );
        return Err(invalid("other-digest", message));
    }
    let length = file.metadata().map_err(|error| disk(&error))?.len();
    if length != head.package_bytes() {
        let message = format!(
            "{length} bytes arrived of a package of {}; send it whole",
            head.package_bytes()
        );
        return Err(invalid("incomplete", message));
    }
    file.sync_all().map_err(|error| disk(&error))?;
    let name = directory.join(format!("{digest}.bield"));
    if place(&unfinished.path, &name, length).map_err(|error| disk(&error))? {
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(|error| disk(&error))?;
        return Ok(Outcome::Stored);
    }
    let same = File::open(&name).and_then(|stored| same_bytes(file, stored));
    if same.map_err(|error| disk(&error))? {
        Ok(Outcome::AlreadyThere)
    } else {
        Err(Refusal::new(
            StatusCode::CONFLICT,
            "exists",
            "a complete package with this digest but other chunks is here and stays; if runtimes refuse it, \
             the operator must remove its file from the packages directory, then send yours again",
        ))
    }
}

/// What became of a good upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Stored,
    AlreadyThere,
}

/// Gives a file its name, unless a file of that length has it; `false` then.
fn place(unfinished: &Path, name: &Path, length: u64) -> io::Result<bool> {
    /// Held from looking to renaming, so that two uploads at once cannot both find the name free.
    static NAMING: Mutex<()> = Mutex::new(());
    let _turn = NAMING.lock().unwrap_or_else(PoisonError::into_inner);
    match std::fs::symlink_metadata(name) {
        Ok(there) if there.is_file() && there.len() == length => return Ok(false),
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        // Nothing, or something that is no whole package: a file cut when its disk was full.
        Ok(_) | Err(_) => {}
    }
    std::fs::rename(unfinished, name)?;
    Ok(true)
}

/// Whether two files hold the same bytes, from their starts.
fn same_bytes(mut one: File, other: File) -> io::Result<bool> {
    one.rewind()?;
    let (mut left, mut right) = (
        BufReader::with_capacity(COMPARE_BYTES, one),
        BufReader::with_capacity(COMPARE_BYTES, other),
    );
    loop {
        let (a, b) = (left.fill_buf()?, right.fill_buf()?);
        let count = a.len().min(b.len());
        if count == 0 {
            return Ok(a.len() == b.len());
        }
        if a[..count] != b[..count] {
            return Ok(false);
        }
        left.consume(count);
        right.consume(count);
    }
}

/// A sentence for each way a disk says no.
fn disk(error: &io::Error) -> Refusal {
    tracing::error!(%error, "packages directory");
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            Refusal::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "disk-full",
                "the gateway's disk is full; its operator must free space in the packages directory, then send it again",
            )
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Refusal::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "disk-permissions",
            "the gateway may not use its packages directory; its operator must correct the permissions",
        ),
        _ => Refusal::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "disk",
            format!("the gateway's packages directory failed: {error}; its operator must look"),
        ),
    }
}

/// A file that goes away unless it got its name. After the rename nothing is left to remove.
struct Unfinished {
    path: PathBuf,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_and_wrong_permissions_say_whose_move_it_is() {
        let status = |kind: ErrorKind| disk(&kind.into()).into_response().status();
        assert_eq!(
            status(ErrorKind::StorageFull),
            StatusCode::INSUFFICIENT_STORAGE
        );
        assert_eq!(
            status(ErrorKind::PermissionDenied),
            StatusCode::INTERNAL_SERVER_ERROR
        );
    }

    #[tokio::test]
    async fn an_upload_that_trickles_is_cut_though_it_is_never_silent() {
        let directory = tempfile::tempdir().unwrap();
        let trickle = stream::unfold((), async |()| {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Some((Ok::<_, io::Error>(Bytes::from_static(b"x")), ()))
        });
        let path = directory.path().join("upload");
        let cut = receive(
            Body::from_stream(trickle),
            &path,
            1 << 30,
            Duration::from_millis(200),
        );
        let cut = tokio::time::timeout(FRAME_WAIT, cut).await.unwrap();
        let refusal = cut.unwrap_err().into_response();
        assert_eq!(refusal.status(), StatusCode::REQUEST_TIMEOUT);
    }

    #[test]
    fn bytes_that_arrive_earn_an_upload_time() {
        assert_eq!(time_for(0, UPLOAD_GRACE), UPLOAD_GRACE);
        let gib = time_for(1 << 30, UPLOAD_GRACE);
        assert_eq!(gib, UPLOAD_GRACE + Duration::from_secs(8192));
    }

    #[test]
    fn leftovers_of_a_killed_gateway_are_removed_and_packages_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(".upload-7-0"), "half").unwrap();
        std::fs::write(directory.path().join("abc.bield"), "whole").unwrap();
        prepare(directory.path()).unwrap();
        let names: Vec<_> = directory
            .path()
            .read_dir()
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["abc.bield"]);
    }
}

//! `/v1/packages/<digest>`: sealed packages on disk.
//!
//! ```text
//! PUT ─frames─▶ .upload-<pid>-<n> ─head read: digest and length right?─▶ fsync ─rename─▶ <digest>.bield
//! ```
//!
//! Always true: a file named by a digest has the head with that digest and its full length. Whether each
//! chunk is genuine only a runtime with the key can tell; so a package may be uploaded again over a bad one.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path as FromPath, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bield_envelope::Digest;
use bield_package::PackageHead;
use futures_util::{StreamExt as _, stream};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::GatewayError;
use crate::http::Face;
use crate::refusal::{Refusal, json_response};

/// Longest silence within an upload.
const FRAME_WAIT: Duration = Duration::from_secs(30);
/// Bytes read from disk at once for a download.
const DOWNLOAD_BYTES: usize = 256 * 1024;
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
    let directory = face.arguments.packages.clone();
    let number = face.upload_number.fetch_add(1, Ordering::Relaxed);
    let unfinished = Unfinished {
        path: directory.join(format!("{UNFINISHED}{}-{number}", std::process::id())),
    };

    let bytes = receive(
        body,
        &unfinished.path,
        face.arguments.package_gib.saturating_mul(1 << 30),
    )
    .await?;
    let kept = tokio::task::spawn_blocking(move || keep(&unfinished, &directory, &digest));
    kept.await
        .map_err(|_| Refusal::unavailable("stopping", "this gateway is stopping"))??;
    tracing::info!(package = digest.short(), bytes, "package stored");
    Ok(json_response(
        StatusCode::CREATED,
        &json!({ "package": digest.to_string(), "bytes": bytes }),
    ))
}

/// `GET` and `HEAD`: a stored package.
pub(crate) async fn download(
    State(face): State<Face>,
    FromPath(digest): FromPath<String>,
) -> Result<Response, Refusal> {
    let digest = parse(&digest)?;
    let path = face.arguments.packages.join(format!("{digest}.bield"));
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

/// Writes the body to a file; returns its length.
async fn receive(body: Body, path: &Path, bytes_max: u64) -> Result<u64, Refusal> {
    let mut file = tokio::fs::File::create(path)
        .await
        .map_err(|error| disk(&error))?;
    let mut frames = body.into_data_stream();
    let mut bytes = 0u64;
    loop {
        let frame = tokio::time::timeout(FRAME_WAIT, frames.next()).await;
        let frame = match frame {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => break,
            Ok(Some(Err(_))) | Err(_) => {
                return Err(Refusal::new(
                    StatusCode::REQUEST_TIMEOUT,
                    "upload-cut",
                    "the upload broke off or stalled; send it again",
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
fn keep(unfinished: &Unfinished, directory: &Path, digest: &Digest) -> Result<(), Refusal> {
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
    file.sync_all()
        .and_then(|()| std::fs::rename(&unfinished.path, directory.join(format!("{digest}.bield"))))
        .and_then(|()| File::open(directory)?.sync_all())
        .map_err(|error| disk(&error))
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

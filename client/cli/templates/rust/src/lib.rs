//! What this function does. Each request gets an instance of its own: only buckets outlive it.

mod bield;

use bield::{Bucket, Error, Function, Request, Response};

struct Guestbook;

impl Function for Guestbook {
    fn handle(request: Request) -> Result<Response, Error> {
        match &*request.path {
            "/visit" => visit(&request),
            "/visitors" => visitors(),
            other => Err(Error::NotFound(format!(
                "nothing at {other}; there is /visit, /visitors"
            ))),
        }
    }
}

/// Counts how often each caller came by.
fn visit(request: &Request) -> Result<Response, Error> {
    let visits = Bucket::open("visits")?.increment(&request.caller, 1)?;
    Ok(bield::text(visits.to_string()))
}

/// Who came how often, a line each. A number is kept as decimal text.
fn visitors() -> Result<Response, Error> {
    let bucket = Bucket::open("visits")?;
    let mut lines = String::new();
    for caller in bucket.keys()? {
        let times = bucket.get(&caller)?.unwrap_or_default();
        lines += &format!("{caller} {}\n", String::from_utf8_lossy(&times));
    }
    Ok(bield::text(lines))
}

bield::export!(Guestbook with_types_in bield::bindings);

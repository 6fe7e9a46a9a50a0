//! `bield-keys --tee software:SOCKET [--member N]`: started by a launcher, which passes the door as standard input.
//!
//! Exit codes: 0 the host closed the door; 1 refused to serve, or found a fault in itself; 2 wrong arguments.

use std::process::ExitCode;

use bield_platform::memory::EnclaveAllocator;

#[global_allocator]
static ALLOCATOR: EnclaveAllocator = EnclaveAllocator;

fn main() -> ExitCode {
    // A panic's message may quote contents; its place in the source may not.
    std::panic::set_hook(Box::new(|panic| {
        if let Some(place) = panic.location() {
            eprintln!("bield-keys: fault at {}:{}", place.file(), place.line());
        }
    }));
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((tee, member)) = read(&arguments) else {
        return usage();
    };
    match bield_keys::run(tee, member) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bield-keys: {error}");
            ExitCode::from(1)
        }
    }
}

fn read(arguments: &[String]) -> Option<(&str, u8)> {
    let (mut tee, mut member) = (None, None);
    for pair in arguments.chunks(2) {
        match pair {
            [flag, value] if flag == "--tee" && tee.is_none() => tee = Some(value.as_str()),
            [flag, value] if flag == "--member" && member.is_none() => {
                member = Some(value.parse().ok()?);
            }
            _ => return None,
        }
    }
    Some((tee?, member.unwrap_or(0)))
}

fn usage() -> ExitCode {
    eprintln!(
        "bield-keys is started by bield-gateway, which passes it a door as standard input.\n\
         usage: bield-keys --tee software:SOCKET [--member N]"
    );
    ExitCode::from(2)
}

#[cfg(test)]
mod tests {
    use super::read;

    fn of(text: &str) -> Option<(String, u8)> {
        let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
        read(&words).map(|(tee, member)| (tee.to_owned(), member))
    }

    #[test]
    fn arguments_are_taken_in_any_order_and_no_other_way() {
        assert_eq!(of("--tee software:x"), Some(("software:x".into(), 0)));
        assert_eq!(of("--member 2 --tee t"), Some(("t".into(), 2)));
        for bad in [
            "--tee",
            "--member 1",
            "--tee a --tee b",
            "--tee a --member x",
            "--tee a --member 300",
            "a b",
        ] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}

//! Which addresses of a configuration are asked.
//!
//! In: an address that the owner of a capsule wrote into its configuration. Out: whether a client of that
//! capsule asks there. Always true: only `http://host:port`, without a user, path or query, so that
//! nothing but a replica's interface is ever asked for; addresses of this machine and of its network only
//! when the user allows it, because a stranger's capsule must not reach what only this machine can.
//!
//! Not here: a name that resolves otherwise a moment later.

use std::net::{IpAddr, Ipv6Addr, ToSocketAddrs as _};

use ureq::http::Uri;

/// Why `address` is not asked; what the user typed is not checked here.
pub(super) fn check(address: &str, allow_private: bool) -> Result<(), String> {
    let uri: Option<Uri> = address.parse().ok();
    let form = uri.as_ref().and_then(|uri| {
        let (host, port) = (uri.host()?, uri.port_u16()?);
        let plain = format!("http://{host}:{port}");
        (address == plain || address == format!("{plain}/")).then_some((host, port))
    });
    let Some((host, port)) = form else {
        return Err("its address in the configuration is not http://HOST:PORT".to_owned());
    };
    if allow_private {
        return Ok(());
    }
    let host = host.trim_matches(['[', ']']);
    let mut found = match (host, port).to_socket_addrs() {
        Ok(found) => found,
        Err(error) => return Err(format!("its address does not resolve: {error}")),
    };
    match found.find(|address| is_private(address.ip())) {
        None => Ok(()),
        Some(private) => Err(format!(
            "its address in the configuration is {}, of this machine or its network, and you did not type \
             it: name it with --replica, or `bield capsule open NAME --allow-private`",
            private.ip()
        )),
    }
}

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [first, second, ..] = address.octets();
            address.is_loopback()
                || address.is_private()
                || address.is_link_local()
                || address.is_unspecified()
                || address.is_broadcast()
                || address.is_multicast()
                || first == 0
                // Shared by a provider's customers.
                || (first == 100 && (64..128).contains(&second))
        }
        IpAddr::V6(address) => address
            .to_ipv4_mapped()
            .or_else(|| low_bits(&address))
            .map_or_else(
                || {
                    address.is_loopback()
                        || address.is_unspecified()
                        || address.is_unique_local()
                        || address.is_unicast_link_local()
                        || address.is_multicast()
                },
                |address| is_private(address.into()),
            ),
    }
}

/// The IPv4 address behind a translator (`64:ff9b::/96`).
fn low_bits(address: &Ipv6Addr) -> Option<std::net::Ipv4Addr> {
    let [a, b, 0, 0, 0, 0, high, low] = address.segments() else {
        return None;
    };
    let [first, second] = high.to_be_bytes();
    let [third, fourth] = low.to_be_bytes();
    (a == 0x64 && b == 0xff9b).then(|| [first, second, third, fourth].into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_host_and_a_port_are_asked() {
        for address in [
            "http://203.0.113.7:8801/admin",
            "http://203.0.113.7:8801?x=y",
            "http://user@203.0.113.7:8801",
            "http://203.0.113.7",
            "https://203.0.113.7:8801",
            "file:///etc/passwd",
            "",
        ] {
            assert!(check(address, true).is_err(), "{address}");
        }
        assert!(check("http://203.0.113.7:8801", false).is_ok());
        assert!(check("http://[2001:db8::7]:8801", false).is_ok());
    }

    #[test]
    fn this_machine_and_its_network_are_asked_only_when_allowed() {
        for host in [
            "127.0.0.1",
            "10.1.2.3",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "[::1]",
            "[fd00::1]",
            "[fe80::1]",
            "[::ffff:127.0.0.1]",
            "[64:ff9b::a9fe:a9fe]",
        ] {
            let address = format!("http://{host}:8801");
            let refused = check(&address, false).unwrap_err();
            assert!(refused.contains("--allow-private"), "{refused}");
            assert!(check(&address, true).is_ok(), "{address}");
        }
    }
}

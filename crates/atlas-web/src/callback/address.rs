//! Checks callback URLs before a machine is made that would send a secret there.
//!
//! Deliberately absent: resolving names. Preventing that a public name is later pointed at a
//! private address is the host's responsibility.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use atlas_core::{Error, Result};
use http::Uri;

const MAX_LEN: usize = 1024;
/// Names that no machine in a cloud can reach, or that mean the machine itself.
const PRIVATE_SUFFIXES: &[&str] = &[
    "localhost",
    "localdomain",
    "local",
    "internal",
    "intranet",
    "private",
    "lan",
    "home",
    "corp",
    "mail",
    "home.arpa",
    "in-addr.arpa",
    "ip6.arpa",
    "svc",
    "consul",
    "onion",
    "test",
    "invalid",
    // Public names that resolve to a loopback address everywhere.
    "localtest.me",
    "lvh.me",
    "vcap.me",
    "lacolhost.com",
    "fuf.me",
];

/// Where a name resolves to the address that it spells, in hexadecimal and as IPv6 too.
const SPELLING_ZONES: &[&str] = &["nip.io", "sslip.io", "xip.io", "traefik.me", "backname.io"];

/// Which hosts a callback URL may name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// Hosts of the open internet, over https.
    #[default]
    Public,
    /// Any host, and http too: for tests, and for machines inside one's own network.
    Private,
}

/// A checked URL, without a slash at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallbackUrl(String);

impl CallbackUrl {
    /// Checks the URL to which machines report. Pure: no name is resolved.
    ///
    /// # Errors
    /// `validation`: not an absolute URL; not https, a private or loopback address in any spelling,
    /// or a name that no machine can reach where only public ones may be named; a user, a query or
    /// a fragment.
    pub fn check(url: &str, reach: Reach) -> Result<Self> {
        let wrong = |message: &str| Err(Error::validation("callback_url", message));
        if url.len() > MAX_LEN || url.contains('#') {
            return wrong("must be at most 1024 characters, without a fragment");
        }
        let Ok(uri) = url.parse::<Uri>() else {
            return wrong("is not a URL");
        };
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return wrong("must be absolute: https://host/path");
        };
        if authority.as_str().contains('@') || uri.query().is_some() {
            return wrong("must have neither a user nor a query");
        }
        // `http` reads a port that is no number as none at all.
        if authority.port_u16() == Some(0)
            || (authority.port_u16().is_none() && authority.as_str() != authority.host())
        {
            return wrong("has a port that does not exist");
        }
        match (scheme, reach) {
            ("https", _) | ("http", Reach::Private) => {}
            _ => return wrong("must be https"),
        }
        if reach == Reach::Public {
            check_host(authority.host())?;
        } else if authority.host().is_empty() {
            return wrong("names no host");
        }
        Ok(Self(url.trim_end_matches('/').to_owned()))
    }

    /// The URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check_host(host: &str) -> Result<()> {
    let wrong = |message: &str| Err(Error::validation("callback_url", message));
    let private = || {
        wrong(
            "names a private address; machines could not reach it, or would reach their own \
                network",
        )
    };
    if let Some(inner) = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        return match inner.parse::<Ipv6Addr>() {
            Ok(address) if is_public(IpAddr::V6(address)) => Ok(()),
            Ok(_) => private(),
            Err(_) => wrong("names no valid address"),
        };
    }
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let labels: Vec<&str> = name.split('.').collect();
    let plain = |label: &&str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() > 253 || !labels.iter().all(plain) {
        return wrong("names no valid host");
    }
    // What ends in a number is an address to every browser and resolver, in whatever spelling:
    // 127.1, 0x7f000001, 2130706433.
    if labels
        .last()
        .is_some_and(|last| number(last).is_some() || last.bytes().all(|b| b.is_ascii_digit()))
    {
        return match loose_ipv4(&labels) {
            Some(address) if is_public(IpAddr::V4(address)) => Ok(()),
            Some(_) => private(),
            None => wrong("names no valid address"),
        };
    }
    let ends_in = |suffix: &str| {
        name == suffix
            || name
                .strip_suffix(suffix)
                .is_some_and(|rest| rest.ends_with('.'))
    };
    if labels.len() == 1
        || PRIVATE_SUFFIXES.iter().any(|suffix| ends_in(suffix))
        || spells_private(&labels)
        || (SPELLING_ZONES.iter().any(|zone| ends_in(zone)) && spells_private_in_hex(&labels))
    {
        return private();
    }
    Ok(())
}

/// Names like `10.0.0.7.nip.io` and `10-0-0-7.sslip.io`, which resolve to the address that they
/// spell.
fn spells_private(labels: &[&str]) -> bool {
    let spelled = |parts: &[&str]| {
        let octets: Option<Vec<u8>> = parts.iter().map(|part| part.parse::<u8>().ok()).collect();
        let octets: Option<[u8; 4]> = octets.and_then(|octets| octets.try_into().ok());
        octets.is_some_and(|octets| !is_public(IpAddr::V4(octets.into())))
    };
    labels.windows(4).any(spelled)
        || labels
            .iter()
            .any(|label| label.split('-').collect::<Vec<_>>().windows(4).any(spelled))
}

/// Names like `0a000007.nip.io` and `fd00--1.sslip.io`. Only where names are known to be read so:
/// elsewhere eight hexadecimal digits are a commit.
fn spells_private_in_hex(labels: &[&str]) -> bool {
    let v4 = |part: &str| {
        let address = (part.len() == 8)
            .then(|| u32::from_str_radix(part, 16).ok())
            .flatten();
        address.is_some_and(|address| !is_public(IpAddr::V4(address.into())))
    };
    let v6 = |label: &&str| {
        let address = label.replace('-', ":").parse::<Ipv6Addr>();
        address.is_ok_and(|address| !is_public(IpAddr::V6(address)))
    };
    let parts = labels.iter().flat_map(|label| label.split('-'));
    parts.into_iter().any(v4) || labels.iter().any(v6)
}

/// One part of an address as `inet_aton` reads it: decimal, octal with 0, hexadecimal with 0x.
fn number(part: &str) -> Option<u64> {
    match part.strip_prefix("0x") {
        Some("") => Some(0),
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None if part.len() > 1 && part.starts_with('0') => u64::from_str_radix(part, 8).ok(),
        None => part.parse().ok(),
    }
}

fn loose_ipv4(labels: &[&str]) -> Option<Ipv4Addr> {
    let parts: Vec<u64> = labels
        .iter()
        .map(|label| number(label))
        .collect::<Option<_>>()?;
    let (last, first) = parts.split_last()?;
    if first.len() > 3 || first.iter().any(|part| *part > 255) {
        return None;
    }
    let free = 4 - first.len();
    if *last >= 1 << (8 * free) {
        return None;
    }
    let mut address = *last;
    for (index, part) in first.iter().enumerate() {
        address |= part << (8 * (3 - index));
    }
    u32::try_from(address).ok().map(Ipv4Addr::from)
}

/// Whether an address is of the open internet.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            !(a == 0
                || a == 10
                || a == 127
                || a >= 224
                || (a == 100 && (64..128).contains(&b))
                || (a == 169 && b == 254)
                || (a == 172 && (16..32).contains(&b))
                || (a == 192 && b == 168)
                || (a == 192 && b == 0 && (c == 0 || c == 2))
                || (a == 192 && b == 88 && c == 99)
                || (a == 198 && (18..20).contains(&b))
                || (a == 198 && b == 51 && c == 100)
                || (a == 203 && b == 0 && c == 113))
        }
        IpAddr::V6(v6) => {
            // Global unicast only, without what stands for another address or for documents.
            let [a, b, ..] = v6.segments();
            a & 0xe000 == 0x2000
                && a != 0x2002
                && !(a == 0x2001 && (b < 0x0200 || b == 0x0db8))
                && !(a == 0x3fff && b < 0x1000)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_public_https_url_passes_and_loses_its_last_slash() {
        for url in [
            "https://app.example.com/cb/",
            "https://app.example.com:8443/cb",
            "https://8.8.8.8/cb",
            "https://08080808.nip.io/cb",
            "https://0a1b2c3d.app.example.com/cb",
            "https://svc.example.com/cb",
            "https://[2606:4700::1]/cb",
        ] {
            let checked = CallbackUrl::check(url, Reach::Public)
                .unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!(checked.as_str(), url.trim_end_matches('/'));
        }
    }

    #[test]
    fn no_spelling_of_a_private_host_passes() {
        for host in [
            "localhost",
            "LOCALHOST.",
            "a.localhost",
            "db.internal",
            "nas.local",
            "router",
            "127.0.0.1",
            "127.0.0.1.",
            "127.1",
            "0",
            "0x7f.1",
            "0x7f000001",
            "2130706433",
            "017700000001",
            "0177.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "198.18.0.1",
            "[::1]",
            "[::]",
            "[fe80::1]",
            "[fd00::1]",
            "[::ffff:10.0.0.1]",
            "[::ffff:8.8.8.8]",
            "[64:ff9b::a00:1]",
            "[2002:a00:1::]",
            "[2001:db8::1]",
            "[ff02::1]",
            "10.0.0.7.nip.io",
            "app.10-0-0-7.sslip.io",
            "app-10-0-0-7.nip.io",
            "0a000007.nip.io",
            "app-7f000001.nip.io",
            "A9FEA9FE.nip.io",
            "fd00--1.sslip.io",
            "app.localtest.me",
            "svc",
            "api.default.svc",
            "api.default.svc.cluster.local",
            "localhost.localdomain",
            "metadata.google.internal",
            "vault.service.consul",
            "7.0.0.10.in-addr.arpa",
            "256.1.1.1",
            "1.2.3.4.5",
            "1.2.3.08",
            "x.1",
        ] {
            let url = format!("https://{host}/cb");
            assert!(CallbackUrl::check(&url, Reach::Public).is_err(), "{url}");
        }
    }

    #[test]
    fn what_is_no_plain_https_url_is_refused() {
        for url in [
            "",
            "app.example.com",
            "/cb",
            "http://app.example.com/cb",
            "ftp://app.example.com/",
            "https://",
            "https:///cb",
            "https://u:p@app.example.com/",
            "https://app.example.com/?a=1",
            "https://app.example.com/#x",
            "https://app.example.com:0/",
            "https://app.example.com:/",
            "https://app.example.com:99999/",
            "https://a..example.com/",
            "https://-a.example.com/",
            "https://exa mple.com/",
        ] {
            assert!(CallbackUrl::check(url, Reach::Public).is_err(), "{url}");
        }
        assert!(
            CallbackUrl::check(
                &format!("https://app.example.com/{}", "a".repeat(2000)),
                Reach::Public
            )
            .is_err()
        );
    }

    #[test]
    fn private_reach_takes_loopback_and_http_but_no_user() {
        assert!(CallbackUrl::check("http://127.0.0.1:3000/cb", Reach::Private).is_ok());
        assert!(CallbackUrl::check("http://u@127.0.0.1/", Reach::Private).is_err());
        assert!(CallbackUrl::check("file:///etc/passwd", Reach::Private).is_err());
    }

    proptest! {
        #[test]
        fn nothing_panics_and_every_spelling_of_one_address_is_judged_alike(text: String,
            address: u32, dots in 0_usize..4) {
            let _ = CallbackUrl::check(&text, Reach::Public);
            let _ = CallbackUrl::check(&format!("https://{text}/"), Reach::Public);
            let octets = address.to_be_bytes();
            let spelled = match dots {
                0 => format!("{address:#x}"),
                1 => format!("{}.{}", octets[0], address & 0x00ff_ffff),
                2 => format!("{:#o}.{}.{}", octets[0], octets[1], address & 0xffff).replacen("0o",
                    "0", 1),
                _ => address.to_string(),
            };
            let plain = format!("https://{}/", Ipv4Addr::from(address));
            prop_assert_eq!(
                CallbackUrl::check(&plain, Reach::Public).is_ok(),
                CallbackUrl::check(&format!("https://{spelled}/"), Reach::Public).is_ok(), "{}",
                    spelled
            );
        }
    }
}

//! `--probe`: what must answer before a machine counts as ready.

use std::str::FromStr;

use atlas::{Error, Port, Probe, Protocol, Result};

/// The value of `--probe`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ProbeArg {
    /// Nothing: the cloud's word counts.
    None,
    /// The probe that the option names.
    Some(Probe),
}

impl FromStr for ProbeArg {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong =
            || Error::validation("probe", "write http:8000, http:8000/path, tcp:22 or none");
        if text == "none" {
            return Ok(Self::None);
        }
        let (kind, place) = text.split_once(':').ok_or_else(wrong)?;
        let at = place.find('/').unwrap_or(place.len());
        let (port, path) = place.split_at(at);
        let port: u32 = port.parse().map_err(|_| wrong())?;
        match (kind, path) {
            ("http", "") => Ok(Self::Some(Probe::http(port, "/"))),
            ("http", path) => Ok(Self::Some(Probe::http(port, path))),
            ("tcp", "") => Ok(Self::Some(Probe::tcp(port))),
            _ => Err(wrong()),
        }
    }
}

/// The probe to use: the one that was given, or with `by_default` the first HTTP port.
pub(crate) fn chosen(
    given: Option<&ProbeArg>,
    by_default: bool,
    ports: &[Port],
) -> Result<Option<Probe>> {
    let probe = match given {
        Some(ProbeArg::None) => return Ok(None),
        Some(ProbeArg::Some(probe)) => probe.clone(),
        None => {
            let mut http = ports
                .iter()
                .filter(|port| by_default && port.protocol() == Protocol::Http);
            return Ok(http.next().map(|port| Probe::http(port.number(), "/")));
        }
    };
    if ports.iter().any(|port| port.number() == probe.port()) {
        Ok(Some(probe))
    } else {
        let port = probe.port();
        Err(Error::validation(
            "probe",
            format!("port {port} is not exposed; add --port {port}"),
        ))
    }
}

/// What is waited for, as a noun phrase.
pub(crate) fn describe(probe: Option<&Probe>) -> String {
    match probe {
        Some(Probe::Http { port, path }) => format!("an answer to GET {path} on port {port}"),
        Some(Probe::Tcp { port }) => format!("a TCP connection to port {port}"),
        _ => "the cloud to report the machine as running".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_reads_as_the_help_says() {
        for (text, probe) in [
            ("http:8000", Probe::http(8000, "/")),
            (
                "http:8000/health?deep=1",
                Probe::http(8000, "/health?deep=1"),
            ),
            ("tcp:22", Probe::tcp(22)),
        ] {
            assert_eq!(text.parse::<ProbeArg>().unwrap(), ProbeArg::Some(probe));
        }
        assert_eq!("none".parse::<ProbeArg>().unwrap(), ProbeArg::None);
        for odd in [
            "", "http", "http:", "http:x/", "tcp:22/x", "udp:53", "8000", "None",
        ] {
            assert!(odd.parse::<ProbeArg>().is_err(), "{odd}");
        }
    }

    #[test]
    fn the_first_http_port_is_probed_by_default_and_only_exposed_ports_can_be() {
        let ports = [Port::tcp(22), Port::http(8000), Port::http(9000)];
        let given = |text: &str| Some(text.parse::<ProbeArg>().unwrap());
        let chosen = |given: Option<ProbeArg>, by_default| {
            chosen(given.as_ref(), by_default, &ports).map_err(|error| error.to_string())
        };
        assert_eq!(chosen(None, true), Ok(Some(Probe::http(8000, "/"))));
        assert_eq!(chosen(None, false), Ok(None));
        assert_eq!(chosen(given("none"), true), Ok(None));
        assert_eq!(chosen(given("tcp:22"), false), Ok(Some(Probe::tcp(22))));
        let wrong = chosen(given("http:80"), true).unwrap_err();
        assert!(wrong.contains("--port 80"), "{wrong}");
    }
}

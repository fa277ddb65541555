//! Container image references: the grammar that registries and container engines share.
//!
//! Source: `reference.go` of the `distribution/reference` module, which Docker and containerd use.
//! The domain is optional: the text before the first `/` is a domain if it contains a dot, a port
//! or an upper-case letter, or is `localhost` (`splitDockerDomain` in `normalize.go`).

/// The longest path (`RepositoryNameTotalLengthMax` in `reference.go`).
const MAX_PATH: usize = 255;
const MAX_TAG: usize = 128;
/// The maximum length of a domain name (RFC 1035 section 2.3.4).
const MAX_DOMAIN: usize = 255;

/// The digest algorithms of the OCI image specification, with the number of hex digits of each.
const DIGESTS: [(&str, usize); 3] = [("sha256", 64), ("sha384", 96), ("sha512", 128)];

/// Checks that `text` is a reference that a registry can have; the error says what is wrong.
pub(crate) fn check(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.contains("://") {
        return Err("it is a URL; write the registry and the path without a scheme");
    }
    let (named, digest) = match text.split_once('@') {
        Some((named, digest)) => (named, Some(digest)),
        None => (text, None),
    };
    // A colon before a slash belongs to the port of the domain.
    let (name, tag) = match named.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (named, None),
    };
    check_name(name)?;
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err(
            "its tag must be 1 to 128 letters, digits, '_', '.' or '-', \
                    and begin with none of the last two",
        );
    }
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return Err(
            "its digest must be sha256:, sha384: or sha512: with all its hex digits, \
                    in lower case",
        );
    }
    if tag.is_none() && digest.is_none() && name.len() == 64 && is_lower_hex(name) {
        return Err("it is the id of a local image, which no registry serves");
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), &'static str> {
    let (domain, path) = match name.split_once('/') {
        Some((first, rest)) if is_domain_like(first) && is_domain(first) => (Some(first), rest),
        // The grammar reads `a_b.c/d` as a path, because a host name has no underscore.
        Some((first, _)) if is_domain_like(first) && !is_path_component(first) => {
            return Err("its registry is not a host name with an optional port");
        }
        _ => (None, name),
    };
    // The grammar takes `Acme/infer` for the registry `Acme`. No machine in a cloud can look up
    // such a name, and what was meant is the path `acme/infer`.
    if domain.is_some_and(|domain| !domain.contains(['.', ':']) && domain != "localhost") {
        return Err("its path must be in lower case");
    }
    if path.len() > MAX_PATH {
        return Err("its path is longer than 255 characters");
    }
    if path.split('/').all(is_path_component) {
        Ok(())
    } else if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Err("its path must be in lower case")
    } else {
        Err("its path must be lower-case letters and digits, \
             with single '.', '_', '__' or dashes between them")
    }
}

fn is_domain_like(first: &str) -> bool {
    first == "localhost"
        || first.contains(['.', ':'])
        || first.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// `host [':' port]`, where the host is a domain name or an IPv6 address in brackets.
fn is_domain(text: &str) -> bool {
    if text.len() > MAX_DOMAIN {
        return false;
    }
    if let Some(rest) = text.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else {
            return false;
        };
        let is_address = !address.is_empty()
            && address
                .bytes()
                .all(|byte| byte.is_ascii_hexdigit() || byte == b':');
        return is_address && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    host.split('.').all(is_domain_component) && port.is_none_or(is_port)
}

fn is_domain_component(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// The grammar requires only digits; a number above 65535 is not a port.
fn is_port(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && text.parse::<u16>().is_ok_and(|port| port > 0)
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(text: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_separator =
        |text: &str| matches!(text, "." | "_" | "__") || text.bytes().all(|byte| byte == b'-');
    text.starts_with(alphanumeric)
        && text.ends_with(alphanumeric)
        && text
            .split(alphanumeric)
            .filter(|between| !between.is_empty())
            .all(is_separator)
}

/// `[\w][\w.-]{0,127}`
fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=MAX_TAG).contains(&text.len())
        && text.bytes().next().is_some_and(is_word)
        && text
            .bytes()
            .all(|byte| is_word(byte) || byte == b'.' || byte == b'-')
}

fn is_digest(text: &str) -> bool {
    text.split_once(':').is_some_and(|(algorithm, hex)| {
        DIGESTS.contains(&(algorithm, hex.len())) && is_lower_hex(hex)
    })
}

fn is_lower_hex(text: &str) -> bool {
    text.bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn references_that_registries_have_are_accepted() {
        let digest = "a".repeat(64);
        for text in [
            "nginx",
            "nginx:1.27",
            "acme/infer",
            "ghcr.io/acme/infer:1",
            "Registry.Example/x:1",
            "registry.example:5000/a/b_c-d.e/f__g---h:T_1.x-y",
            "localhost/x",
            "localhost:5000/x",
            "10.0.0.1:5000/x",
            "[2001:db8::1]:5000/x",
            "docker.io/library/ubuntu:22.04",
            "registry.fly.io/shop:deployment-01J",
            &format!("acme/infer@sha256:{digest}"),
            &format!("ghcr.io/acme/infer:1@sha256:{digest}"),
            &format!("acme/infer@sha512:{digest}{digest}"),
            &format!("acme/{}", "a".repeat(250)),
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn references_that_no_registry_can_have_are_refused() {
        let hex = "a".repeat(64);
        for text in [
            "",
            "Nginx",
            "Acme/infer",
            "ghcr.io/Acme/infer",
            "https://ghcr.io/acme/infer",
            "docker://acme/infer",
            "oci://acme/infer",
            "acme/infer:",
            "acme/infer@",
            ":1",
            "/acme",
            "acme/",
            "acme//infer",
            "acme/infer:-1",
            "acme/infer:a b",
            "acme/infer:1:2",
            "acme/infer:1@latest",
            "acme/infer@sha256:abc",
            &format!("acme/infer@sha256:{}", hex.to_uppercase()),
            &format!("acme/infer@md5:{hex}"),
            &format!("acme/infer@sha256:{hex}@sha256:{hex}"),
            &format!("acme/infer:{}", "t".repeat(129)),
            &format!("acme/{}", "a".repeat(256)),
            &hex,
            "acme/in..fer",
            "acme/in___fer",
            "acme/-infer",
            "acme/infer_",
            "registry.example:/x",
            "registry.example:port/x",
            "registry.example:70000/x",
            "-registry.example/x",
            "registry..example/x",
            "acme/infer\n",
            "acme/infér",
            " acme/infer",
            "-v",
        ] {
            assert!(check(text).is_err(), "{text:?}");
        }
    }

    /// A path component, by the grammar.
    const COMPONENT: &str = "[a-z0-9]{1,6}((\\.|_|__|-{1,3})[a-z0-9]{1,5}){0,2}";
    const DOMAIN: &str = "[a-zA-Z0-9]([a-zA-Z0-9-]{0,5}[a-zA-Z0-9])?\
                          (\\.[a-zA-Z0-9]([a-zA-Z0-9-]{0,5}[a-zA-Z0-9])?){1,3}(:[1-9][0-9]{0,3})?";
    const TAG: &str = "[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}";

    proptest! {
        #[test]
        fn whatever_the_grammar_derives_is_accepted(
            domain in proptest::option::of(DOMAIN),
            path in proptest::collection::vec(COMPONENT, 1..4),
            tag in proptest::option::of(TAG),
            digest in proptest::option::of("sha256:[0-9a-f]{64}"),
        ) {
            let mut text = domain.map(|domain| domain + "/").unwrap_or_default();
            text.push_str(&path.join("/"));
            text.extend(tag.map(|tag| format!(":{tag}")));
            text.extend(digest.map(|digest| format!("@{digest}")));
            prop_assert_eq!(check(&text), Ok(()), "{}", text);
        }

        #[test]
        fn a_character_outside_the_grammar_is_refused_wherever_it_stands(
            before in COMPONENT,
            wrong in "[^a-zA-Z0-9._:@/\\[\\]-]",
            after in COMPONENT,
        ) {
            let text = format!("{before}{wrong}{after}");
            prop_assert!(check(&text).is_err(), "{text:?}");
        }

        #[test]
        fn an_upper_case_letter_in_the_path_is_refused(
            domain in proptest::option::of(DOMAIN),
            before in COMPONENT,
            upper in "[A-Z]",
            after in proptest::option::of(COMPONENT),
        ) {
            let domain = domain.map(|domain| domain + "/").unwrap_or_default();
            let text = format!("{domain}{before}{upper}{}", after.unwrap_or_default());
            prop_assert!(check(&text).is_err(), "{text}");
        }

        #[test]
        fn any_text_is_judged_without_a_panic(text in "\\PC{0,80}") {
            let _ = check(&text);
        }
    }
}

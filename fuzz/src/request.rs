//! What is matched is what is sent: host and path have one form, which means what the client wrote and stays as it is
//! when it is read again; and nobody but a trusted proxy says who the client is.

use super::{Outcome, lines};
use bonterra_gateway::authn::credential::bearer;
use bonterra_gateway::request::{RequestView, TrustedProxies, canonical_path};
use http::header::{AUTHORIZATION, HOST};
use http::request::Parts;
use http::{HeaderValue, Method, Uri};
use percent_encoding::percent_decode_str;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Checks a request head.
pub fn check(data: &[u8]) -> Outcome {
    // The path is also checked by itself: `http` refuses some targets before the gateway sees them.
    let line = data.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if let Some((_, target, _)) = lines::request_line(lines::without_cr(line))
        && let Ok(target) = std::str::from_utf8(target)
    {
        path(target.split('?').next().unwrap_or_default());
    }
    let Some(head) = lines::read(data) else {
        return Outcome::Refused;
    };
    let proxies = TrustedProxies::new(["10.0.0.0/8".parse().expect("a network")]);
    let (stranger, proxy) = ([192, 0, 2, 1], [10, 0, 0, 1]);
    let from = |address: [u8; 4]| proxies.peer(SocketAddr::from((address, 4711)));
    let Ok(view) = RequestView::new(&head, from(stranger), &proxies) else {
        let other = RequestView::new(&head, from(proxy), &proxies);
        assert!(other.is_err(), "a proxy's request is read less strictly");
        return Outcome::Refused;
    };
    assert!(!matches!(*view.method, Method::CONNECT | Method::TRACE));
    assert_eq!(view.client, Some(IpAddr::from(stranger)), "invented");
    host(&view.host);
    path(&view.path);
    one_reading(&head, &view, &proxies);
    credential(&view);
    let behind = RequestView::new(&head, from(proxy), &proxies).expect("the same request");
    if let Some(client) = behind.client {
        assert_eq!(client, client.to_canonical(), "two spellings of a client");
    }
    Outcome::Accepted
}

/// A host in its only form.
fn host(host: &str) {
    assert!(!host.is_empty() && !host.ends_with('.'), "{host:?}");
    assert!(!host.bytes().any(|b| b.is_ascii_uppercase()), "{host:?}");
    match host.strip_prefix('[') {
        Some(rest) => {
            let address = rest.strip_suffix(']').map(str::parse::<Ipv6Addr>);
            assert!(matches!(address, Some(Ok(_))), "{host:?}");
        }
        None => assert!(!host.contains([':', '@', '/', '[', ']', ' ']), "{host:?}"),
    }
}

/// If this path is taken: its form is a fixed point, and says what was written.
fn path(raw: &str) {
    let Ok(path) = canonical_path(raw) else {
        return;
    };
    assert_eq!(canonical_path(&path).as_deref(), Ok(&*path), "{raw:?}");
    let bytes = |text| percent_decode_str(text).collect::<Vec<u8>>();
    assert_eq!(bytes(&path), bytes(raw), "another path than {raw:?}");
    assert!(path.starts_with('/') && !path.contains("//"), "{path:?}");
    assert!(path.bytes().all(|b| b.is_ascii_graphic()), "{path:?}");
    assert!(!path.contains(['\\', ';', '?', '#']), "{path:?}");
    // Whoever decodes it once more, or twice, still finds no other segments.
    let once = percent_decode_str(&path).decode_utf8().expect("UTF-8");
    let twice = percent_decode_str(&once).decode_utf8().expect("UTF-8");
    for read in [&once, &twice] {
        assert_eq!(read.matches('/').count(), path.matches('/').count());
        assert!(!read.split('/').any(|segment| matches!(segment, "." | "..")));
        assert!(!read.contains(['\\', ';']), "{path:?}");
        assert!(!read.contains(|c: char| c.is_ascii_control()), "{path:?}");
    }
}

/// The request with the form in place of what came is read as the same request.
fn one_reading(head: &Parts, view: &RequestView<'_>, proxies: &TrustedProxies) {
    assert_eq!(head.headers.get_all(HOST).iter().count(), 1);
    let mut rewritten = head.clone();
    let target = match view.query {
        Some(query) => format!("{}?{query}", view.path),
        None => view.path.to_string(),
    };
    rewritten.uri = target.parse::<Uri>().expect("a target");
    let host = HeaderValue::from_str(&view.host).expect("a value");
    rewritten.headers.insert(HOST, host);
    let again = RequestView::new(&rewritten, view.peer, proxies).expect("its own form");
    assert_eq!((&again.host, &again.path), (&view.host, &view.path));
    assert_eq!(again.query, view.query);
}

/// A token is taken from one place only (RFC 6750 §2).
fn credential(view: &RequestView<'_>) {
    let Ok(Some(token)) = bearer(view) else {
        return;
    };
    let sent: Vec<_> = view.headers.get_all(AUTHORIZATION).iter().collect();
    assert_eq!(sent.len(), 1);
    assert!(sent[0].as_bytes().ends_with(token.as_bytes()));
    assert!(
        !token.is_empty() && token.trim_ascii() == token,
        "{token:?}"
    );
    let query = view.query.unwrap_or_default().as_bytes();
    let mut pairs = query.split(|byte| matches!(byte, b'&' | b';'));
    let named =
        pairs.any(|pair| form_urlencoded::parse(pair).any(|(name, _)| name == "access_token"));
    assert!(!named, "a second token in the query");
}

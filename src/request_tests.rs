//! Table tests of `request`.

use super::*;
use http::Request;

#[test]
fn paths() {
    for (raw, canonical) in [
        ("/", "/"),
        ("/grants/1", "/grants/1"),
        ("/%61dmin", "/admin"),
        ("/users/auth0%7c507f", "/users/auth0%7C507f"),
        ("/users/auth0|507f", "/users/auth0%7C507f"),
        ("/a[1]/{x}\"^`<>", "/a%5B1%5D/%7Bx%7D%22%5E%60%3C%3E"),
        ("/a.b/c", "/a.b/c"),
        ("/a/...", "/a/..."),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/a%20b", "/a%20b"),
        ("/a:b@c,d=e+f!$&'()*", "/a:b@c,d=e+f!$&'()*"),
    ] {
        assert_eq!(canonical_path(raw).as_deref(), Ok(canonical), "{raw}");
    }
    for raw in [
        "/a/../b",
        "/a/%2e%2e/b",
        "/a/.%2E/b",
        "/a/./b",
        "/..",
        "//admin",
        "/a//b",
        "/a%2fb",
        "/a%5Cb",
        "/a\\b",
        "/admin;x",
        "/admin%3bx",
        "/%00",
        "/%0a",
        "/%",
        "/%2",
        "/%zz",
        "/%c0%ae",
        "/%e0%80%af",
        "/%e9",
        "/%e2%82x",
        "/%ed%a0%80",
        "/a%252e",
        "/a b",
        "/a#b",
        "admin",
        "*",
        "",
    ] {
        assert!(canonical_path(raw).is_err(), "{raw}");
    }
}

fn view_of(target: &str, hosts: &[&str]) -> Result<String, Rejection> {
    let mut request = Request::get(target);
    for host in hosts {
        request = request.header(HOST, *host);
    }
    let (head, ()) = request.body(()).expect("a request").into_parts();
    let trusted = TrustedProxies::default();
    let peer = trusted.peer(SocketAddr::from(([127, 0, 0, 1], 1)));
    RequestView::new(&head, peer, &trusted).map(|view| view.host.into_owned())
}

#[test]
fn hosts() {
    for (target, host, expected) in [
        ("/", "API.example.com:8080", "api.example.com"),
        ("/", "api.example.com.", "api.example.com"),
        ("/", "[::1]:80", "[::1]"),
        (
            "/",
            "[2001:DB8::FFFF:192.0.2.1]",
            "[2001:db8::ffff:192.0.2.1]",
        ),
        (
            "http://api.example.com/x",
            "api.example.com",
            "api.example.com",
        ),
        (
            "http://api.example.com:80/x",
            "API.example.com",
            "api.example.com",
        ),
    ] {
        assert_eq!(
            view_of(target, &[host]).as_deref(),
            Ok(expected),
            "{target} {host}"
        );
    }
    for (target, hosts) in [
        ("/", &[][..]),
        ("/", &["a", "a"]),
        ("/", &["user@a"]),
        ("/", &["a:b"]),
        ("/", &[""]),
        ("/", &["[::1"]),
        ("/", &["[[::1]"]),
        ("/", &["[....]"]),
        ("/", &["[1.2.3.4]"]),
        ("/", &["[::1]."]),
        ("/", &["."]),
        ("/", &[".."]),
        ("/", &["a.."]),
        ("/", &["a..b"]),
        ("/", &[".a"]),
        ("/", &["a/b"]),
        ("http://user@a/", &["a"]),
        ("http://b/", &["a"]),
        ("*", &["a"]),
    ] {
        let refused = view_of(target, hosts).map_err(|rejection| rejection.reason);
        assert_eq!(refused, Err(Reason::BadRequest), "{target} {hosts:?}");
    }
}

#[test]
fn the_client_behind_trusted_proxies() {
    let trusted = TrustedProxies::new(["10.0.0.0/8".parse::<IpNet>().expect("a network")]);
    for (peer, forwarded, client) in [
        ("192.0.2.1:1", &["198.51.100.7"][..], "192.0.2.1"),
        ("10.0.0.1:1", &[], "10.0.0.1"),
        ("10.0.0.1:1", &["198.51.100.7"], "198.51.100.7"),
        (
            "10.0.0.1:1",
            &["6.6.6.6, 198.51.100.7, 10.0.0.2"],
            "198.51.100.7",
        ),
        (
            "10.0.0.1:1",
            &["6.6.6.6", "198.51.100.7:4711"],
            "198.51.100.7",
        ),
        ("10.0.0.1:1", &["6.6.6.6, junk"], "unknown"),
        ("10.0.0.1:1", &["203.0.113.9, unknown, 10.0.0.2"], "unknown"),
        ("[::ffff:10.0.0.1]:1", &["2001:db8::1"], "2001:db8::1"),
    ] {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(X_FORWARDED_FOR, value.parse().expect("a value"));
        }
        let peer = trusted.peer(peer.parse().expect("an address"));
        assert_eq!(
            trusted.client(peer, &headers),
            client.parse::<IpAddr>().ok(),
            "{forwarded:?}"
        );
    }
}

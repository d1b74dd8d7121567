//! Table tests of `route`.

use super::*;

type Row = (
    &'static str,
    &'static [&'static str],
    &'static [Method],
    &'static str,
);

fn table(rows: &[Row]) -> RouteTable<&'static str> {
    let mut table = RouteTable::default();
    for (pattern, hosts, methods, name) in rows {
        let hosts: Vec<Box<str>> = hosts.iter().map(|host| (*host).into()).collect();
        table
            .insert(&hosts, pattern, &Methods::new(methods.to_vec()), name)
            .expect(name);
    }
    table
}

#[test]
fn the_most_specific_path_wins() {
    let table = table(&[
        ("/*", &[], &[], "all"),
        ("/grants/*", &[], &[], "grants"),
        ("/grants/health", &[], &[], "health"),
        ("/users/{id}", &[], &[Method::GET, Method::PATCH], "user"),
        ("/users/{name}", &[], &[Method::DELETE], "delete"),
        ("/users", &[], &[Method::GET], "users"),
        ("/admin", &["admin.example.com"], &[], "admin"),
    ]);
    for (host, path, method, expected) in [
        ("a", "/", Method::GET, Ok("all")),
        ("a", "/x/y", Method::GET, Ok("all")),
        ("a", "/grants", Method::GET, Ok("grants")),
        ("a", "/grants/", Method::GET, Ok("grants")),
        ("a", "/grants/1/2", Method::POST, Ok("grants")),
        ("a", "/grantsx", Method::GET, Ok("all")),
        ("a", "/grants/health", Method::GET, Ok("health")),
        ("a", "/users/7", Method::GET, Ok("user")),
        ("a", "/users/7", Method::HEAD, Ok("user")),
        ("a", "/users/7", Method::DELETE, Ok("delete")),
        (
            "a",
            "/users/7",
            Method::PUT,
            Err(Reason::MethodNotAllowed("DELETE, GET, HEAD, PATCH".into())),
        ),
        ("a", "/users/7/x", Method::GET, Ok("all")),
        ("a", "/admin", Method::GET, Ok("all")),
        ("admin.example.com", "/admin", Method::GET, Ok("admin")),
        ("admin.example.com", "/grants", Method::GET, Ok("grants")),
    ] {
        let found = table
            .find(host, path, &method)
            .copied()
            .map_err(|rejection| rejection.reason);
        assert_eq!(found, expected, "{method} {host}{path}");
    }
}

#[test]
fn patterns_that_share_paths_live_side_by_side() {
    let rows: [Row; 9] = [
        ("/*", &[], &[], "all"),
        ("/users/*", &[], &[], "users"),
        ("/users", &[], &[], "list"),
        ("/users/{id}", &[], &[], "user"),
        ("/users/me", &[], &[], "me"),
        ("/users/{id}/orders/*", &[], &[], "orders"),
        ("/users/{id}/orders/{order}", &[], &[], "order"),
        ("/{tenant}/{id}", &[], &[], "tenant"),
        ("/{tenant}/*", &[], &[], "below tenant"),
    ];
    let reversed: Vec<Row> = rows.iter().rev().copied().collect();
    for table in [table(&rows), table(&reversed)] {
        for (path, expected) in [
            ("/", "all"),
            ("/users", "list"),
            ("/users/", "users"),
            ("/users/7", "user"),
            ("/users/me", "me"),
            ("/users/7/8", "users"),
            ("/users/7/orders", "orders"),
            ("/users/7/orders/1", "order"),
            ("/users/7/orders/1/2", "orders"),
            ("/a", "below tenant"),
            ("/a/b", "tenant"),
            ("/a/b/c", "below tenant"),
        ] {
            assert_eq!(table.find("h", path, &Method::GET), Ok(&expected), "{path}");
        }
    }
}

#[test]
fn without_a_catch_all_there_is_no_route() {
    let table = table(&[("/grants/*", &[], &[], "grants")]);
    assert_eq!(
        table.find("a", "/x", &Method::GET).map_err(|r| r.reason),
        Err(Reason::NoRoute)
    );
}

#[test]
fn duplicates_are_found() {
    let mut table = table(&[("/users/{id}", &[], &[Method::GET], "one")]);
    let again = |table: &mut RouteTable<&'static str>, pattern: &str, methods: Vec<Method>| {
        table.insert(&[], pattern, &Methods::new(methods), &"two")
    };
    assert_eq!(
        again(&mut table, "/users/{other}", vec![Method::GET]),
        Err(RouteError::Shadowed("one"))
    );
    assert_eq!(
        again(&mut table, "/users/{id}", vec![Method::HEAD]),
        Err(RouteError::Shadowed("one"))
    );
    assert_eq!(again(&mut table, "/users/{id}", vec![Method::PUT]), Ok(()));
    assert_eq!(again(&mut table, "/users/{id}", vec![]), Ok(()));
    assert_eq!(
        again(&mut table, "/users/{id}", vec![Method::DELETE]),
        Err(RouteError::Shadowed("two"))
    );
    for pattern in ["users", "/a*b", "/*/b", "/{}", "/a{b}", "/a//b"] {
        assert!(
            matches!(
                again(&mut table, pattern, vec![]),
                Err(RouteError::Pattern(_))
            ),
            "{pattern}"
        );
    }
}

//! Finding a route among ten and among ten thousand.

use bonterra_gateway::route::{Methods, RouteTable};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::Method;
use std::hint::black_box;

fn table(routes: usize) -> RouteTable<usize> {
    let mut table = RouteTable::default();
    for number in 0..routes {
        let pattern = match number % 3 {
            0 => format!("/api/v1/service-{number}/*"),
            1 => format!("/api/v1/service-{number}/items/{{id}}"),
            _ => format!("/api/v1/service-{number}/status"),
        };
        table
            .insert(&[], &pattern, &Methods::default(), &number)
            .expect("a free pattern");
    }
    table
}

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route");
    for routes in [10, 10_000] {
        let table = table(routes);
        // One of each kind, from the middle of the table.
        let middle = routes / 2 / 3 * 3;
        let paths = [
            format!("/api/v1/service-{middle}/a/b/c"),
            format!("/api/v1/service-{}/items/4711", middle + 1),
            format!("/api/v1/service-{}/status", middle + 2),
            "/nothing/here".to_owned(),
        ];
        for path in &paths[..3] {
            assert!(table.find("api", path, &Method::GET).is_ok(), "{path}");
        }
        group.bench_with_input(
            BenchmarkId::new("find four", routes),
            &paths,
            |bencher, paths| {
                bencher.iter(|| {
                    for path in paths {
                        let _ = black_box(table.find("api", black_box(path), &Method::GET));
                    }
                });
            },
        );
    }
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);

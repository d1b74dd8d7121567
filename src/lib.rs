//! An API gateway and OAuth token broker for internal APIs of the Bonterra Network.
//!
//! The way of a request, and the module that each step is in:
//!
//! ```text
//! accept ─► (PROXY) ─► (TLS) ─► first bytes ─► http1 or http2 ─► hyper ─► RequestView    server, request
//!                         gateway::admit(&snapshot, &view, now)                          gateway
//!           route.find ─► limit by address ─► authn ─► authz ─► limit by caller ─► Permit route, limit, authn, authz
//!             ┌ Admitted { route, identity, permit } ─► proxy::carry ─► upstream         proxy, contract, headers, upstream
//!             │                                            └ 101 ─► tunnel               proxy::upgrade
//!             ├ OAuth(mount) ─► oauth::token ─► issuer                                   oauth, outbound
//!             ├ Endpoint(mount, endpoint) ─► 302, documents, userinfo, revoke, introspect oauth, store, outbound
//!             ├ Exchange(mount, handle) ─► memory or one GET, then once more             oauth::handles, store
//!             ├ Options(allow), Preflight(route) ─► 204                                  server, cors
//!             ├ CountAddress, CountCaller ─► here or in Redis, then once more            limit, store
//!             ├ Needs(keys of an issuer) ─► one shared fetch, then once more             keys
//!             ├ Needs(what the issuer says) ─► one question a token, then once more      introspection
//!             └ Refused(rejection) ─► Rejection::reply                                   rejection
//!          every way out ─► one access record and its metrics                            telemetry
//! ```
//!
//! `config` is the file as written, [`snapshot`] what it means; [`app`] starts and ends everything,
//! [`reload`] swaps snapshots, [`admin`] shows and controls them, [`cli`] is the program around it,
//! and [`demo`] the simulated world for trying out and for tests.
//!
//! Three rules hold it together, and `tests/it/architecture.rs` enforces the first:
//!
//! - Imports go one way: `cli → app → {server, admin, reload, proxy} → gateway → snapshot → …`.
//! - A decision takes values and returns a value. It does no I/O and knows no socket.
//! - A request sees one snapshot from start to end, and a cached token is a fact, never a permission.

#![forbid(unsafe_code)]

pub mod admin;
pub mod app;
pub mod authn;
pub mod authz;
pub mod cli;
pub mod config;
pub mod contract;
pub mod cors;
pub mod demo;
pub mod gateway;
pub mod headers;
pub mod identity;
pub mod internal_jwt;
pub mod introspection;
pub mod keys;
pub mod limit;
pub mod oauth;
pub mod outbound;
pub mod proxy;
pub mod rejection;
pub mod reload;
pub mod request;
pub mod route;
pub mod server;
pub mod snapshot;
pub mod socket;
pub mod steps;
pub mod store;
mod strict_json;
pub mod telemetry;
pub mod upstream;

/// The version with the revision that it was built from.
pub const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (",
    env!("GATEWAY_REVISION"),
    ")"
);

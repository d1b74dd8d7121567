//! Black-box tests: a gateway, a simulated Bonterra Auth with real keys, and an upstream, all in
//! this process, driven through real sockets on loopback. One binary, one file a capability.

#![forbid(unsafe_code)]

mod adversary;
mod architecture;
mod balancing;
mod command;
mod differential;
mod fuzz_corpora;
mod grpc;
mod handles;
mod hardening;
mod harness;
mod http2;
mod identity;
mod internal_jwt;
mod lifecycle;
mod listeners;
mod metrics_and_log;
mod oauth;
mod opaque;
mod proxying;
mod refusals;
mod reuse;
mod revocation;
mod rim;
mod smoke;
mod surface;
mod tls;
mod tracing;
mod traffic;
mod tunnels;

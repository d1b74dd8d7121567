//! Black-box tests: a gateway, a simulated Bonterra Auth with real keys, and an upstream, all in
//! this process, driven through real sockets on loopback. One binary, one file a capability.

#![forbid(unsafe_code)]

mod adversary;
mod architecture;
mod assertions;
mod balancing;
mod command;
mod differential;
mod documents;
mod foreign;
mod fresh_tokens;
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
mod password;
mod proxying;
mod refresh;
mod refusals;
mod reuse;
mod revocation;
mod rim;
mod shared_revocation;
mod smoke;
mod storm;
mod surface;
mod tls;
mod tracing;
mod traffic;
mod tunnels;
mod upstream_token;
mod users;

//! A reverse proxy on pingora-proxy with the check that bonterra-gateway does: RS256 bearer tokens verified against
//! one public key, verified tokens remembered by digest, claims handed to the upstream as headers.
//! It exists to be measured, see `../README.md`; it is no gateway to run.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use aws_lc_rs::digest;
use clap::Parser;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use moka::sync::Cache;
use pingora_core::Result;
use pingora_core::server::Server;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_http::RequestHeader;
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};
use serde::Deserialize;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Tolerated difference between the issuer's clock and ours, in seconds.
const LEEWAY: u64 = 30;
/// How many verified tokens are remembered.
const CACHE_ENTRIES: u64 = 100_000;

#[derive(Parser)]
struct Args {
    /// Where to listen, as address:port.
    #[arg(long)]
    listen: String,
    /// Where requests go, as address:port.
    #[arg(long)]
    origin: String,
    /// PEM file of the issuer's public key; without it the proxy forwards every request unchecked.
    #[arg(long, requires_all = ["issuer", "audience"])]
    public_key: Option<PathBuf>,
    /// The `iss` that tokens must have.
    #[arg(long)]
    issuer: Option<String>,
    /// The `aud` that tokens must have.
    #[arg(long)]
    audience: Option<String>,
}

#[derive(Deserialize)]
struct Claims {
    exp: u64,
    sub: Option<String>,
    scope: Option<String>,
    #[serde(rename = "urn:bonterra:claims:bonterra_auth_id")]
    auth_id: Option<String>,
    #[serde(rename = "urn:bonterra:claims:is_bonterra_grants")]
    is_grants: Option<bool>,
}

/// Answers whether a bearer token is good, from memory where it was seen before.
struct Checker {
    key: DecodingKey,
    validation: Validation,
    verified: Cache<[u8; digest::SHA256_OUTPUT_LEN], Arc<Claims>>,
}

struct Gateway {
    origin: String,
    checker: Option<Checker>,
}

// === impl Checker ===

impl Checker {
    fn new(key: DecodingKey, issuer: &str, audience: &str) -> Self {
        let mut validation = Validation::new(Algorithm::RS256);
        validation.set_issuer(&[issuer]);
        validation.set_audience(&[audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY;
        Self {
            key,
            validation,
            verified: Cache::new(CACHE_ENTRIES),
        }
    }

    fn check(&self, request: &RequestHeader) -> Option<Arc<Claims>> {
        let header = request.headers.get("authorization")?.to_str().ok()?;
        let token = header.strip_prefix("Bearer ")?;
        let mut key = [0; digest::SHA256_OUTPUT_LEN];
        key.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());

        if let Some(claims) = self.verified.get(&key) {
            // The signature stays good for ever, the token does not.
            return (now() < claims.exp + LEEWAY).then_some(claims);
        }
        let claims = decode::<Claims>(token, &self.key, &self.validation)
            .ok()?
            .claims;
        let claims = Arc::new(claims);
        self.verified.insert(key, claims.clone());
        Some(claims)
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

// === impl Gateway ===

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Option<Arc<Claims>>;

    fn new_ctx(&self) -> Self::CTX {
        None
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Self::CTX) -> Result<bool> {
        let Some(checker) = &self.checker else {
            return Ok(false);
        };
        *ctx = checker.check(session.req_header());
        if ctx.is_none() {
            session.respond_error(401).await?;
        }
        Ok(ctx.is_none())
    }

    async fn upstream_peer(&self, _: &mut Session, _: &mut Self::CTX) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(&self.origin, false, String::new())))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream: &mut RequestHeader,
        ctx: &mut Self::CTX,
    ) -> Result<()> {
        if let Some(client) = session.client_addr().and_then(|addr| addr.as_inet()) {
            upstream.insert_header("X-Forwarded-For", client.ip().to_string())?;
        }
        let Some(claims) = ctx else {
            return Ok(());
        };
        let is_grants = claims.is_grants.map(|is| if is { "true" } else { "false" });
        for (name, value) in [
            ("X-Bonterra-Auth-Id", claims.auth_id.as_deref()),
            ("X-Bonterra-Is-Grants", is_grants),
            ("X-Bonterra-Subject", claims.sub.as_deref()),
            ("X-Bonterra-Scope", claims.scope.as_deref()),
        ] {
            match value {
                Some(value) => upstream.insert_header(name, value)?,
                None => drop(upstream.remove_header(name)),
            }
        }
        Ok(())
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    let checker = match (&args.public_key, &args.issuer, &args.audience) {
        (Some(pem), Some(issuer), Some(audience)) => {
            let key = DecodingKey::from_rsa_pem(&fs::read(pem)?)?;
            Some(Checker::new(key, issuer, audience))
        }
        _ => None,
    };

    let conf = ServerConf {
        threads: 1,
        work_stealing: false,
        upstream_keepalive_pool_size: 128,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let gateway = Gateway {
        origin: args.origin,
        checker,
    };
    let mut service = http_proxy_service(&server.configuration, gateway);
    service.add_tcp(&args.listen);
    server.add_service(service);
    server.run_forever()
}

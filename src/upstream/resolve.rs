//! From the names in `servers` to addresses, in the background.

use super::Upstream;
use super::set::Answers;
use futures_util::future::join_all;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// A name that has never been resolved is tried again after this time, if `dns_refresh` is longer.
const IMPATIENCE: Duration = Duration::from_secs(1);

/// An answer takes no longer than this, or it counts as none: one slow name must not keep the others of an upstream
/// from being asked again. Resolvers ask a second name server after 5 s.
const PATIENCE: Duration = Duration::from_secs(8);

/// An entry of `servers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// An address or a name, without port and brackets.
    pub host: Box<str>,
    /// The port, whether it was written or follows from the scheme.
    pub port: u16,
    /// Whether the scheme is `https`.
    pub tls: bool,
    /// Its share, compared with the others'.
    pub weight: u32,
}

/// What tells the addresses of a name. Clones ask the same.
#[derive(Clone, Debug)]
pub struct Resolver(Arc<dyn Resolve>);

/// The addresses of a name, or why there are none.
pub type Resolving<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>>;

/// Something that knows the addresses of names.
pub trait Resolve: fmt::Debug + Send + Sync {
    /// The addresses of `host`, in any order.
    fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a>;
}

#[derive(Debug)]
struct System;

// === impl Origin ===

impl Origin {
    /// The address, where it is written as such.
    pub fn literal(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Host and port, as in a URL.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The URL, without a path.
    pub fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}", self.authority())
    }
}

// === impl Resolver ===

impl Resolver {
    /// The system's: its hosts file, its name servers.
    pub fn system() -> Self {
        Self(Arc::new(System))
    }

    /// Another one, for simulations.
    pub fn of(resolve: impl Resolve + 'static) -> Self {
        Self(Arc::new(resolve))
    }

    async fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let found = tokio::time::timeout(PATIENCE, self.0.resolve(host)).await;
        let found = found.map_err(|_| io::Error::other("no answer in time"))?;
        let addresses = chosen(found?);
        if addresses.is_empty() {
            return Err(io::Error::other("the name has no address"));
        }
        Ok(addresses)
    }
}

impl Resolve for System {
    fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a> {
        Box::pin(async move {
            let addresses = tokio::net::lookup_host((host, 0)).await?;
            Ok(addresses.map(|address| address.ip()).collect())
        })
    }
}

/// The addresses that are used: of one family, in an order that does not change with every answer. With both, every
/// server that listens on one only would count as two of which one is dead.
fn chosen(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    for address in &mut addresses {
        *address = address.to_canonical();
    }
    if addresses.iter().any(IpAddr::is_ipv4) {
        addresses.retain(IpAddr::is_ipv4);
    }
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// Resolves the names of an upstream again and again; runs until it is dropped. `tried` is told once each name was
/// tried.
pub(super) async fn run(upstream: Arc<Upstream>, tried: watch::Sender<bool>) {
    let mut failing = vec![false; upstream.servers.origins.len()];
    loop {
        let answers = ask(&upstream, &mut failing).await;
        let all = answers.iter().all(|addresses| !addresses.is_empty());
        upstream.servers.resolved(answers, upstream.eject);
        tried.send_replace(true);
        let refresh = upstream.dns_refresh;
        let pause = if all {
            refresh
        } else {
            refresh.min(IMPATIENCE)
        };
        // A tenth more or less: several gateways, and several upstreams, do not ask together.
        tokio::time::sleep(pause.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
    }
}

/// The addresses of every entry; where a name cannot be resolved, those known so far.
async fn ask(upstream: &Upstream, failing: &mut [bool]) -> Answers {
    let known = upstream.servers.now().answers.clone();
    let asked = upstream
        .servers
        .origins
        .iter()
        .map(async |origin| match origin.literal() {
            Some(address) => Ok(vec![address]),
            None => upstream.resolver.addresses(&origin.host).await,
        });
    let found = join_all(asked).await;
    let origins = upstream.servers.origins.iter().zip(known).zip(failing);
    let answers = origins.zip(found).map(|(((origin, known), failing), found)| {
        let failed_before = std::mem::replace(failing, found.is_err());
        match found {
            Ok(addresses) => {
                if addresses != known {
                    tracing::info!(upstream = %upstream.name, name = %origin.host, ?addresses, "resolved");
                }
                addresses
            }
            Err(error) => {
                // Once, not at every attempt.
                if !failed_before {
                    tracing::warn!(upstream = %upstream.name, name = %origin.host, %error, known = known.len(), "not resolved; the addresses known so far stay in use");
                }
                known
            }
        }
    });
    answers.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_family_in_one_order() {
        for (found, expected) in [
            (vec!["::1", "127.0.0.1"], vec!["127.0.0.1"]),
            (
                vec!["10.0.0.2", "10.0.0.1", "10.0.0.2"],
                vec!["10.0.0.1", "10.0.0.2"],
            ),
            (vec!["fd00::2", "fd00::1"], vec!["fd00::1", "fd00::2"]),
            (vec!["::ffff:10.0.0.1", "fd00::1"], vec!["10.0.0.1"]),
            (vec![], vec![]),
        ] {
            let read = |list: Vec<&str>| -> Vec<IpAddr> {
                list.into_iter().map(|text| text.parse().unwrap()).collect()
            };
            assert_eq!(chosen(read(found.clone())), read(expected), "{found:?}");
        }
    }
}

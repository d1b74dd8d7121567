//! An upstream whose every connection is a bare socket in the hands of the test.

use super::{Raw, local};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

/// Plays the same script on every connection. Ends when dropped.
pub struct RawUpstream {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl RawUpstream {
    /// Plays `script` on each connection. A panic in it only closes the connection.
    pub async fn start<F, Fut>(script: F) -> Self
    where
        F: Fn(Raw) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(local()).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let connections = Arc::new(AtomicUsize::new(0));
        let accepted = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            let mut playing = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                accepted.fetch_add(1, Relaxed);
                playing.spawn(script(Raw::of(stream)));
            }
        });
        Self {
            address,
            connections,
            task,
        }
    }

    /// Answers the first request on each connection with these bytes and closes it.
    pub async fn says(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = Arc::new(bytes.into());
        Self::start(move |mut raw| {
            let bytes = Arc::clone(&bytes);
            async move {
                raw.reply().await;
                raw.try_send(bytes.as_slice()).await;
            }
        })
        .await
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }
}

impl Drop for RawUpstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

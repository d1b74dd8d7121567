//! Interim responses (RFC 9110 §15.2) on their way from an upstream to the client, and an end to them
//! where an upstream sends nothing else.

use super::Client;
use crate::headers::{self, HeaderRules};
use crate::rejection::{Reason, Rejection};
use crate::upstream::Upload;
use futures_util::task::AtomicWaker;
use http::{Request, StatusCode};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::task::Poll;

/// More interim responses to one request are an attack or a fault.
const MOST: u32 = 16;

/// The interim responses to one request.
#[derive(Debug, Default)]
pub(super) struct Interim {
    came: AtomicU32,
    waker: AtomicWaker,
}

// === impl Interim ===

impl Interim {
    /// Has hyper tell of the interim responses to `request`, and passes them on to a client that can
    /// take them, without what the route's `rules` remove or set. hyper tells of those of HTTP/1.1 alone.
    pub(super) fn watch(
        self: &Arc<Self>,
        request: &mut Request<Upload>,
        client: &Arc<dyn Client>,
        rules: Option<Arc<HeaderRules>>,
    ) {
        let (told, client) = (Arc::clone(self), Arc::clone(client));
        hyper::ext::on_informational(request, move |response| {
            let before = told.came.fetch_add(1, Relaxed);
            told.waker.wake();
            if before >= MOST {
                return;
            }
            // Nobody asked for a 100: `Expect` has been dealt with on this side.
            if response.status() == StatusCode::CONTINUE {
                return;
            }
            let mut fields = response.headers().clone();
            headers::interim_towards_client(&mut fields, rules.as_deref());
            client.interim(response.status(), &fields);
        });
    }

    /// Waits for `response`, unless too many interim ones come first.
    pub(super) async fn unless_flooded<T>(
        &self,
        mut response: Pin<&mut impl Future<Output = T>>,
    ) -> Result<T, Rejection> {
        poll_fn(|cx| {
            self.waker.register(cx.waker());
            if self.came.load(Relaxed) > MOST {
                let note = "no end of interim responses";
                return Poll::Ready(Err(Rejection::noted(Reason::UpstreamProtocol, note)));
            }
            response.as_mut().poll(cx).map(Ok)
        })
        .await
    }
}

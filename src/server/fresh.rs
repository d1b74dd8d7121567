//! Keys follow tokens: what the issuer has just issued through the gateway is judged at once, beside
//! the client's way, so that its first request finds it known and its key at hand.

use crate::authn::foresee;
use crate::oauth::Handles;
use crate::snapshot::{Mount, Snapshot};
use bytes::Bytes;
use serde::Deserialize;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

/// For as long as this the keys for one token are asked for: two fetches that take their time, and the
/// pause between them.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is read of a token reply. Has no `Debug`: it holds a token.
#[derive(Deserialize)]
struct Issued<'b> {
    #[serde(borrow)]
    access_token: Cow<'b, str>,
}

/// Judges the token in a reply of the issuer of `mount`, in a task of its own. If it is signed with a
/// key that is not at hand, the keys are fetched, whatever strangers have asked for a moment ago.
///
/// Nothing of it is counted, and nothing comes of a token that is not for this gateway.
pub(super) fn follow(snapshot: &Arc<Snapshot>, mount: &Mount, reply: Bytes) {
    let issuer = &mount.provider.issuer;
    if issuer.introspection.is_some() {
        return;
    }
    let (snapshot, issuer) = (Arc::clone(snapshot), Arc::clone(issuer));
    let handles = mount.handles.clone();
    tokio::spawn(async move {
        let Ok(Issued { access_token }) = serde_json::from_slice(&reply) else {
            return;
        };
        let Some(access_token) = issued(handles, access_token).await else {
            return;
        };
        let lacks_key = || {
            let (issuers, known) = (&snapshot.issuers, &snapshot.tokens);
            foresee(issuers, known, &issuer, &access_token, snapshot.clock.now())
        };
        let fetching = async {
            while lacks_key() {
                if issuer.keys.refresh_for_issued_token().await.is_break() {
                    // With the keys as fresh as they can be had.
                    lacks_key();
                    break;
                }
            }
        };
        // What is not known by then is looked into when it is used.
        let _ = pingora_timeout::timeout(PATIENCE, fetching).await;
    });
}

/// What the issuer has issued: the token in the reply, or the one inside of the handle that the client got for it.
async fn issued<'b>(handles: Option<Arc<Handles>>, given: Cow<'b, str>) -> Option<Cow<'b, str>> {
    let Some(handles) = handles else {
        return Some(given);
    };
    let handle = handles.read(&given)?;
    let inside = handles.exchange(&handle, || None).await.ok()?;
    Some(Cow::Owned(inside.token().to_owned()))
}

//! Token requests while the issuer fails in every way; the bench `broker` sends a hundred thousand.

#[path = "../../benches/support/storm.rs"]
mod load;

use crate::harness::World;
use load::{Issuer, SURFACES, storm};

const CONFIG: &str = r#"
[server]
listen = ["127.0.0.1:0"]
workers = 2
drain_delay = "0s"

[admin]
listen = "127.0.0.1:0"
"#;

#[tokio::test]
async fn nothing_arrives_twice_and_nobody_gets_anothers() {
    const POSTS: u32 = 3000;
    let issuer = Issuer::start().await.expect("an issuer");
    let endpoint = format!("http://{}/token", issuer.address);
    let world = World::with(&format!("{CONFIG}{SURFACES}").replace("TOKEN", &endpoint)).await;
    let found = storm(
        world.gateway.address,
        &["/plain", "/cached"],
        &issuer,
        POSTS,
    )
    .await;
    assert_eq!(found.wrong, [""; 0]);
    assert_eq!(found.sent, POSTS);
    assert!(found.unlucky.len() < POSTS as usize / 100, "{found:?}");
    // Of twenty there are one whose client leaves, and ten or eleven whose issuer has a token.
    assert_eq!(found.left, POSTS / 20);
    assert!(
        found.tokens > POSTS / 2 && found.errors > POSTS / 4,
        "{found:?}"
    );
}

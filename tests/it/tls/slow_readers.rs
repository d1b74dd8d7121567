//! Clients that ask and do not read: TLS takes bytes that the client has not, and that is no progress.

use super::Site;
use crate::harness::h2raw::{INITIAL_WINDOW_SIZE, PREFACE, SETTINGS, WINDOW_UPDATE, frame, get};
use crate::harness::{CONFIG, eventually, with_lines};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpSocket;

const KIB: usize = 1 << 10;

/// How much the kernel takes is its own affair, so there is an answer for every case: one that the
/// kernel takes whole, one whose end only TLS has taken, and one that is too much for both.
#[tokio::test]
async fn an_answer_that_nobody_reads_holds_no_connection() {
    let lines = "body_timeout = \"300ms\"\nidle_timeout = \"300ms\"";
    let site = Site::with(&with_lines(CONFIG, "[server]", lines), "").await;
    let address = site.world.gateway.address;
    let gauge = format!("gateway_connections{{listener=\"{address}\"}}");
    let mut asked = 0;
    for protocol in ["http/1.1", "h2"] {
        let mut held = Vec::new();
        for size in (32..4096).step_by(56).map(|kib| kib * KIB) {
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.set_recv_buffer_size(4096).expect("a small buffer");
            let stream = socket.connect(address).await.expect("connected");
            let client = site.client().alpn(&[protocol]);
            let mut stream = client.connect_over(stream).await.expect("a handshake");
            stream.write_all(&ask(protocol, size)).await.expect("sent");
            stream.flush().await.expect("sent");
            held.push(stream);
            asked += 1;
        }
        eventually("they have asked", async || {
            site.world.echo.requests() == asked
        })
        .await;
        eventually(protocol, async || {
            site.world.gateway.metric(&gauge).await == 0.0
        })
        .await;
    }
}

/// A request by either protocol; in HTTP/2 with all the window there is.
fn ask(protocol: &str, size: usize) -> Vec<u8> {
    let path = format!("/public/bytes/{size}");
    if protocol == "http/1.1" {
        return format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes();
    }
    let window = 0x7fff_ffff_u32;
    let setting = [
        &INITIAL_WINDOW_SIZE.to_be_bytes()[..],
        &window.to_be_bytes(),
    ]
    .concat();
    [
        PREFACE.to_vec(),
        frame(SETTINGS, 0, 0, &setting),
        frame(WINDOW_UPDATE, 0, 0, &(window - 0xffff).to_be_bytes()),
        get(1, &path),
    ]
    .concat()
}

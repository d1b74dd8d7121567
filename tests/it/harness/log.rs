//! An access log that a test can read.

use super::eventually;
use serde_json::Value;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

/// Collects what is written.
#[derive(Debug, Clone, Default)]
pub struct LogSink(Arc<Mutex<Vec<u8>>>);

impl Write for LogSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .expect("not poisoned")
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl LogSink {
    /// Everything so far.
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("not poisoned").clone()).expect("UTF-8")
    }

    /// All whole records so far.
    pub fn records(&self) -> Vec<Value> {
        let text = self.text();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole
            .lines()
            .map(|line| serde_json::from_str(line).expect("a JSON record"))
            .collect()
    }

    /// The record of an exchange, once it has been written.
    pub async fn record(&self, request_id: &str) -> Value {
        let find = || {
            self.records()
                .into_iter()
                .find(|record| record["request_id"] == request_id)
        };
        eventually("the access record", || std::future::ready(find().is_some())).await;
        find().expect("the record")
    }
}

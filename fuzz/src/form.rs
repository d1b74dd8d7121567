//! A token in a form is found wherever a reader of forms would find it, and nowhere else, in whatever pieces the form
//! comes.

use super::{Outcome, cuts};
use bonterra_gateway::upstream::FormScan;

/// Checks a form; one with a token in it is refused.
pub fn check(data: &[u8]) -> Outcome {
    // Readers do not agree on whether `;` parts two parameters: both have to be told.
    let mut pairs = data.split(|byte| matches!(byte, b'&' | b';'));
    let named =
        pairs.any(|pair| form_urlencoded::parse(pair).any(|(name, _)| name == "access_token"));
    let by_ampersand = form_urlencoded::parse(data).any(|(name, _)| name == "access_token");
    assert!(named || !by_ampersand, "parted more often, it has less");
    for pieces in cuts::of(data) {
        let mut scan = FormScan::new();
        let found = pieces.iter().any(|piece| scan.feed(piece)) || scan.ends();
        assert_eq!(found, named, "{} pieces", pieces.len());
    }
    if named {
        Outcome::Refused
    } else {
        Outcome::Accepted
    }
}

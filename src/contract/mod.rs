//! What a route asks of a request besides its token, and makes of it on the way: its query and the
//! members of its body. Decided on values; whatever is refused has not been sent anywhere.

mod json;
mod query;

pub use json::JsonFields;
pub use query::{IntegerRange, QueryRules};

use crate::rejection::{Reason, Rejection};

/// A name that came from outside may be shown up to this length.
const SHOWN: usize = 40;

/// A refusal that says to the client what is wrong. `why` is made of the configuration and of names;
/// never of values.
fn refuse(why: String) -> Rejection {
    Rejection::from(Reason::NotAccepted(why.into_boxed_str()))
}

/// A name that came from outside, in a form that does no harm in a message or a log.
fn shown(name: &str) -> String {
    let visible = |char: char| match char {
        ' '..='~' if char != '`' => char,
        _ => '?',
    };
    let mut text: String = name.chars().take(SHOWN).map(visible).collect();
    if name.chars().nth(SHOWN).is_some() {
        text.push_str("...");
    }
    text
}

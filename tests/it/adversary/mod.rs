//! What attackers and accidents send.

mod paths;
mod tokens;

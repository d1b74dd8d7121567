//! What nobody here wrote, on the client's side of OAuth: a browser, and libraries.

mod browser;
mod libraries;

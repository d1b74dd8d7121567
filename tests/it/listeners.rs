//! The ways in: Unix sockets, the PROXY protocol, and what happens when too many want in.

mod limits;
mod proxy_protocol;
mod unix;

//! Starting, staying alive, changing while running, and stopping.

mod drain;
mod keys;
mod reload;
mod start;

//! Starting, staying alive, changing while running, and stopping.

mod cache_file;
mod drain;
mod keys;
mod outage;
mod reload;
mod restart;
mod start;

//! bonterra-gateway: see `bonterra-gateway --help`.

#![forbid(unsafe_code)]

use mimalloc::MiMalloc;
use std::process::ExitCode;

/// Small, short-lived allocations from several threads are this one's strength.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    bonterra_gateway::cli::main()
}

//! The `alluvium` command; the implementation is in [`alluvium::cli`].

use std::process::ExitCode;

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    alluvium::cli::main()
}

use std::process::ExitCode;

/// A sale is thousands of small allocations, most of them in the table; the system's allocator takes a
/// sixth of the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    kassa::cli::run()
}

//! The `triplegain` binary: parse, dispatch, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    triplegain::cli::main()
}

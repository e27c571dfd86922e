//! The binary `dora-remote`: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    dora_remote::app::run(std::env::args_os()).into()
}

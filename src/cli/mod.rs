//! Subcommands of the program, one file each: they answer with text and an exit code.

pub mod journal;

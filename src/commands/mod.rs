//! One file for each subcommand.

pub(crate) mod bench;
pub(crate) mod doctor;
pub(crate) mod export;
pub(crate) mod info;
pub(crate) mod list;
pub(crate) mod reproduce;
pub(crate) mod train;

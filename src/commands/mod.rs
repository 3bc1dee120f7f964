//! The subcommands, one file each.

pub(crate) mod bench;
pub(crate) mod cache;
pub(crate) mod card;
pub(crate) mod completions;
pub(crate) mod convert;
pub(crate) mod data;
pub(crate) mod doctor;
pub(crate) mod embed;
pub(crate) mod evaluate;
pub(crate) mod explain;
pub(crate) mod export;
pub(crate) mod fetch;
pub(crate) mod index;
pub(crate) mod info;
pub(crate) mod launch;
pub(crate) mod list;
pub(crate) mod man;
pub(crate) mod report;
pub(crate) mod reproduce;
pub(crate) mod score;
pub(crate) mod search;
pub(crate) mod serve;
pub(crate) mod suite;
pub(crate) mod table;
pub(crate) mod train;
pub(crate) mod verify;

//! Opens the store that an argument names.

use std::{path::Path, sync::Arc};

use anyhow::Result;
use laps_postgres::{Collection, DatabaseAddress};
use laps_search::{Index, Store};

/// Opens an index file, or a collection if `index` is the address of a database.
pub(crate) fn open_store(index: &Path) -> Result<Arc<dyn Store>> {
    Ok(match database_address(index)? {
        Some(address) => Arc::new(Collection::open(address).map_err(laps::Error::from)?),
        None => Arc::new(Index::open(index)?),
    })
}

/// The address of a database, or None if `text` is a path. PGPASSWORD is the password if the address has none.
pub(crate) fn database_address(text: &Path) -> Result<Option<DatabaseAddress>> {
    match text.to_str() {
        Some(address) if DatabaseAddress::is_address(text) => {
            let parsed = address.parse::<DatabaseAddress>().map_err(laps_search::Error::from);
            let address = parsed.map_err(laps::Error::from)?;
            Ok(Some(address.or_password(std::env::var("PGPASSWORD").ok())))
        }
        _ => Ok(None),
    }
}

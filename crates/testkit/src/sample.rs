//! Databases to back up.
//!
//! [`load_sample`] makes a shop of any size that looks and compresses like real data and is the same every time.
//! [`load_everything`] makes a small database that holds one of everything PostgreSQL has, with the names and values
//! that break backup tools. Both work on every supported version.

use crate::{Result, TestPostgres};

/// The shop, for `psql`; its variables are the fields of [`SampleSize`].
pub const SAMPLE_SQL: &str = include_str!("../sql/sample.sql");

/// One of everything, for `psql`. May be loaded into several databases of one server.
pub const EVERYTHING_SQL: &str = include_str!("../sql/everything.sql");

/// How large the shop is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SampleSize {
    /// Rows of `shop.accounts`, about 0.2 kB each.
    pub accounts: u64,
    /// Rows of `shop.orders`, partitioned by quarter, about 0.15 kB each.
    pub orders: u64,
    /// Rows of `shop.documents`, JSON of 0.3 to 2 kB each.
    pub documents: u64,
    /// Large objects of 0.5 to 64 kB each.
    pub large_objects: u64,
}

impl Default for SampleSize {
    /// Loads within a second.
    fn default() -> Self {
        Self { accounts: 500, orders: 2_000, documents: 200, large_objects: 5 }
    }
}

impl SampleSize {
    /// Sets the number of accounts.
    #[must_use]
    pub fn accounts(mut self, rows: u64) -> Self {
        self.accounts = rows;
        self
    }

    /// Sets the number of orders.
    #[must_use]
    pub fn orders(mut self, rows: u64) -> Self {
        self.orders = rows;
        self
    }

    /// Sets the number of documents.
    #[must_use]
    pub fn documents(mut self, rows: u64) -> Self {
        self.documents = rows;
        self
    }

    /// Sets the number of large objects.
    #[must_use]
    pub fn large_objects(mut self, objects: u64) -> Self {
        self.large_objects = objects;
        self
    }
}

/// Creates the database `name` with the shop in it.
///
/// # Errors
/// When the database exists or a statement fails.
pub fn load_sample(server: &TestPostgres, name: &str, size: SampleSize) -> Result<()> {
    server.create_database(name)?;
    let numbers = [
        ("accounts", size.accounts.to_string()),
        ("orders", size.orders.to_string()),
        ("documents", size.documents.to_string()),
        ("large_objects", size.large_objects.to_string()),
    ];
    let variables: Vec<_> = numbers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    server.psql_with(name, SAMPLE_SQL, &variables).map(drop)
}

/// Creates the database `name` with one of everything in it, and the roles it needs in the server.
///
/// # Errors
/// When the database exists or a statement fails.
pub fn load_everything(server: &TestPostgres, name: &str) -> Result<()> {
    server.create_database(name)?;
    server.psql(name, EVERYTHING_SQL).map(drop)
}

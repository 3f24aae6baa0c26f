//! What a selection can name: tables, and everything else that `pg_dump --table` takes.

use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use crate::error::Error;
use crate::inspect::query_error;
use crate::server::Server;

/// Kinds of relations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RelationKind {
    /// Holds rows of its own; a leaf of a partition tree too.
    #[default]
    Table,
    /// Holds no rows; its partitions do.
    Partitioned,
    /// A view, materialized view, foreign table or sequence.
    Other,
}

/// A relation of a user's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Relation {
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
    /// Kind.
    pub kind: RelationKind,
    /// Bytes of rows on the server, without indexes; 0 for what is no table.
    pub bytes: u64,
    /// Whether it belongs to an extension.
    pub of_extension: bool,
    /// Schemas and names of the partitioned tables that it is a part of.
    pub ancestors: Vec<(String, String)>,
}

impl Relation {
    /// A table of that size that is part of no other.
    #[must_use]
    pub fn table(schema: &str, name: &str, bytes: u64) -> Self {
        Self { schema: schema.to_owned(), name: name.to_owned(), bytes, ..Self::default() }
    }

    /// Whether it holds rows that a dump takes as rows.
    #[must_use]
    pub fn has_rows(&self) -> bool {
        self.kind == RelationKind::Table
    }

    /// Its own name, and those of the partitioned tables that it is a part of.
    pub(crate) fn names(&self) -> impl Iterator<Item = (&str, &str)> {
        let own = (self.schema.as_str(), self.name.as_str());
        let of_ancestors = self.ancestors.iter().map(|(schema, name)| (schema.as_str(), name.as_str()));
        std::iter::once(own).chain(of_ancestors)
    }
}

/// Lists the relations of a database, the largest tables first.
///
/// # Errors
/// [`Error::Query`].
pub(crate) async fn relations(
    connection: &mut PgConnection,
    server: &Server,
) -> Result<Vec<Relation>, Error> {
    let rows = sqlx::query(
        "select n.nspname::text as schema, c.relname::text as name, c.relkind::text as kind,
                case c.relkind when 'r' then pg_table_size(c.oid) else 0 end::int8 as bytes,
                exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid
                        and d.deptype = 'e') as of_extension,
                coalesce(a.schemas, '{}') as ancestor_schemas, coalesce(a.names, '{}') as ancestor_names
         from pg_class c join pg_namespace n on n.oid = c.relnamespace
              left join lateral (
                  select array_agg(an.nspname::text order by ac.oid) as schemas,
                         array_agg(ac.relname::text order by ac.oid) as names
                  from pg_partition_ancestors(c.oid) t join pg_class ac on ac.oid = t.relid
                       join pg_namespace an on an.oid = ac.relnamespace
                  where ac.oid <> c.oid
              ) a on c.relispartition
         where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S') and c.relpersistence <> 't'
               and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname !~ '^pg_(toast|temp)'
         order by bytes desc, 1, 2",
    )
    .fetch_all(connection)
    .await
    .map_err(query_error(server, "list tables"))?;
    Ok(rows.iter().map(relation).collect())
}

fn relation(row: &PgRow) -> Relation {
    let kind = match row.get::<String, _>("kind").as_str() {
        "r" => RelationKind::Table,
        "p" => RelationKind::Partitioned,
        _ => RelationKind::Other,
    };
    let (schemas, names): (Vec<String>, Vec<String>) =
        (row.get("ancestor_schemas"), row.get("ancestor_names"));
    Relation {
        schema: row.get("schema"),
        name: row.get("name"),
        kind,
        bytes: u64::try_from(row.get::<Option<i64>, _>("bytes").unwrap_or_default()).unwrap_or_default(),
        of_extension: row.get("of_extension"),
        ancestors: schemas.into_iter().zip(names).collect(),
    }
}

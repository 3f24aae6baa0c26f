//! Stores roles and tablespaces, which belong to the server and are in no dump of a database.

use std::io::Read;

use backstay_backup_core::manifest::ObjectEntry;
use backstay_backup_core::set_writer::SetWriter;
use bytes::Bytes;
use futures::stream;

use crate::client::Client;
use crate::dump::DumpOptions;
use crate::error::Error;
use crate::server::Server;
use crate::tools::Tool;

/// Name of the object.
pub(crate) const OBJECT: &str = "globals.sql";
/// Largest script that is accepted: a server with a million roles stays far below.
const MOST: u64 = 1 << 30;

/// What `pg_dumpall` says of roles and tablespaces. Password hashes are in it for superusers only.
pub(crate) async fn read(server: &Server, dump_tool: &Tool, superuser: bool) -> Result<Bytes, Error> {
    let tool = Tool::new(dump_tool.folder().join("pg_dumpall"), dump_tool.major);
    let mut arguments = vec!["--globals-only".to_owned(), "--no-password".to_owned()];
    if !superuser {
        arguments.push("--no-role-passwords".to_owned());
    }
    arguments.push(format!("--database={}", server.database));
    let mut client = Client::start("pg_dumpall", &tool, &arguments, server).await?;
    let pipe = client.take_stdout()?;
    let reading = tokio::task::spawn_blocking(move || {
        let mut script = Vec::new();
        pipe.take(MOST).read_to_end(&mut script).map(|_| script)
    });
    let script = reading.await.map_err(|error| crate::client::lost_thread("pg_dumpall", &error))?;
    client.finish().await?;
    script.map(Bytes::from).map_err(|source| Error::Spawn { program: "pg_dumpall", source })
}

/// Writes `globals.sql`.
pub(crate) async fn store(
    set: &SetWriter,
    script: Bytes,
    options: &DumpOptions,
) -> Result<ObjectEntry, Error> {
    let name = object_name(OBJECT, options);
    Ok(set.object(&name, options.codec, stream::iter([Ok(script)])).await?)
}

/// Name of an object with the suffixes that say how to open it.
pub(crate) fn object_name(base: &str, options: &DumpOptions) -> String {
    let encrypted = if options.recipients.is_empty() { "" } else { ".age" };
    format!("{base}{}{encrypted}", options.codec.suffix())
}

//! PostgreSQL's own `backup_manifest`: what `pg_verifybackup` compares a restored cluster with.
//!
//! JSON whose line breaks matter: the last line holds a SHA-256 of all bytes before it. It is written as the files
//! come, so nothing of it stays in memory. Version 2 (since PostgreSQL 17) names the cluster, version 1 does not.

use std::io::{self, Write};

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::{ClusterPath, WalRange};
use crate::wal::SystemId;

/// Name of the file in a data directory.
pub const BACKUP_MANIFEST: &str = "backup_manifest";

/// First major version whose manifests name the cluster.
const NAMES_CLUSTER: u32 = 17;

/// A manifest being written.
#[derive(Debug)]
pub struct ManifestFile<W> {
    out: W,
    digest: Sha256,
    files: u64,
}

impl<W: Write> ManifestFile<W> {
    /// Begins the manifest of a cluster of that major version.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn begin(out: W, major: u32, system: SystemId) -> io::Result<Self> {
        let mut file = Self { out, digest: Sha256::new(), files: 0 };
        let (version, name) = if major >= NAMES_CLUSTER {
            (2, format!("\"System-Identifier\": {system},\n"))
        } else {
            (1, String::new())
        };
        file.put(&format!("{{ \"PostgreSQL-Backup-Manifest-Version\": {version},\n{name}\"Files\": ["))?;
        Ok(file)
    }

    /// Adds a file: its bytes, modification in seconds since 1970, and the CRC-32C of its content.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn file(&mut self, path: &ClusterPath, size: u64, modified: i64, crc: u32) -> io::Result<()> {
        let separator = if self.files == 0 { "\n" } else { ",\n" };
        let path = match std::str::from_utf8(path.as_bytes()) {
            Ok(text) => format!("\"Path\": {}", serde_json::to_string(text)?),
            Err(_) => format!("\"Encoded-Path\": \"{}\"", hex(path.as_bytes())),
        };
        let modified = Timestamp::from_second(modified).unwrap_or_default().strftime("%Y-%m-%d %H:%M:%S GMT");
        // The bytes of the number as they lie in the server's memory.
        let crc = hex(&crc.to_le_bytes());
        self.files += 1;
        self.put(&format!(
            "{separator}{{ {path}, \"Size\": {size}, \"Last-Modified\": \"{modified}\", \
             \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"{crc}\" }}"
        ))
    }

    /// Ends it with the WAL that makes the files consistent, and gives `out` back.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn finish(mut self, wal: &[WalRange]) -> io::Result<W> {
        self.put("\n],\n\"WAL-Ranges\": [")?;
        for (number, range) in wal.iter().enumerate() {
            let separator = if number == 0 { "\n" } else { ",\n" };
            let (timeline, start, end) = (range.timeline.number(), range.start, range.end);
            self.put(&format!(
                "{separator}{{ \"Timeline\": {timeline}, \"Start-LSN\": \"{start}\", \"End-LSN\": \"{end}\" }}"
            ))?;
        }
        self.put("\n],\n")?;
        let digest = hex(&self.digest.clone().finalize());
        self.out.write_all(format!("\"Manifest-Checksum\": \"{digest}\"}}\n").as_bytes())?;
        Ok(self.out)
    }

    fn put(&mut self, text: &str) -> io::Result<()> {
        self.digest.update(text.as_bytes());
        self.out.write_all(text.as_bytes())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use backstay_backup_core::manifest::Sha256Hex;

    use super::*;
    use crate::wal::{Lsn, Timeline};

    fn write(major: u32) -> String {
        let mut file = ManifestFile::begin(Vec::new(), major, SystemId::new(77)).unwrap();
        let path = |bytes: &[u8]| ClusterPath::parse(bytes).unwrap();
        file.file(&path(b"base/1/1259"), 8192, 1_760_000_000, 0x0102_0304).unwrap();
        file.file(&path(b"odd \"\xff"), 0, -1, 0).unwrap();
        let range =
            WalRange { timeline: Timeline::FIRST, start: Lsn::new(0x200_0028), end: Lsn::new(1 << 32) };
        String::from_utf8(file.finish(&[range, range]).unwrap()).unwrap()
    }

    #[test]
    fn it_reads_as_postgres_writes_it() {
        let text = write(16);
        let (body, last) = text.split_at(text.find("\"Manifest-Checksum\"").unwrap());
        assert_eq!(
            body,
            "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [\n\
             { \"Path\": \"base/1/1259\", \"Size\": 8192, \"Last-Modified\": \"2025-10-09 08:53:20 GMT\", \
             \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"04030201\" },\n\
             { \"Encoded-Path\": \"6f64642022ff\", \"Size\": 0, \"Last-Modified\": \"1969-12-31 23:59:59 GMT\", \
             \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"00000000\" }\n],\n\"WAL-Ranges\": [\n\
             { \"Timeline\": 1, \"Start-LSN\": \"0/2000028\", \"End-LSN\": \"1/0\" },\n\
             { \"Timeline\": 1, \"Start-LSN\": \"0/2000028\", \"End-LSN\": \"1/0\" }\n],\n"
        );
        assert_eq!(last, format!("\"Manifest-Checksum\": \"{}\"}}\n", Sha256Hex::of(body.as_bytes())));
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
    }

    #[test]
    fn since_17_it_names_the_cluster() {
        let text = write(17);
        assert!(text.starts_with(
            "{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": 77,\n\"Files\": [\n"
        ));
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
    }
}

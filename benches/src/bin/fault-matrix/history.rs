//! What the source server went through, with a note of what was committed when.

use std::time::{Duration, Instant};

use backstay_testkit::TestPostgres;

use crate::fault::Target;

/// Rows committed after the backup, each in a segment of the log of its own.
pub(crate) const ROWS: u32 = 10;
/// The last row that a target means, other than `latest`.
pub(crate) const TARGET_ROW: u32 = 8;
/// The row whose segment is injured.
pub(crate) const INJURED_ROW: u32 = 5;

/// The record of the workload.
#[derive(Debug)]
pub(crate) struct History {
    /// Name of the segment that is injured.
    pub(crate) segment: String,
    time: String,
    lsn: String,
    xid: String,
}

impl History {
    /// Commits all rows and waits until the archive has them.
    pub(crate) fn write(server: &TestPostgres) -> Self {
        let sql = |text: &str| server.psql("postgres", text).expect("the source server answers");
        let mut noted =
            Self { segment: String::new(), time: String::new(), lsn: String::new(), xid: String::new() };
        for row in 1..=ROWS {
            // Real segments are full: an injury in the middle hits records, not zeros.
            let _ = sql("insert into filler select g, md5(random()::text) from generate_series(1, 20000) g");
            let xid = sql(&format!("insert into entry values ({row}) returning pg_current_xact_id()"));
            if row == INJURED_ROW {
                noted.segment = sql("select pg_walfile_name(pg_current_wal_lsn())");
            }
            if row == TARGET_ROW {
                noted.xid = xid;
                noted.lsn = sql("select pg_current_wal_insert_lsn()");
                noted.time = sql("select to_char(clock_timestamp(), 'YYYY-MM-DD HH24:MI:SS.US+00')");
                let _ = sql("select pg_create_restore_point('here')");
            }
            // Whoever restores to a time finds rows before and after it.
            std::thread::sleep(Duration::from_millis(20));
            let _ = sql("select pg_switch_wal()");
        }
        archived(server);
        noted
    }

    /// The value of a target; none for `latest`.
    pub(crate) fn value(&self, target: Target) -> Option<&str> {
        match target {
            Target::Time => Some(&self.time),
            Target::Lsn => Some(&self.lsn),
            Target::Xid => Some(&self.xid),
            Target::Name => Some("here"),
            Target::Latest => None,
        }
    }

    /// The last row that has to be there after recovery.
    pub(crate) fn expected(target: Target) -> u32 {
        if target == Target::Latest { ROWS } else { TARGET_ROW }
    }
}

/// Waits until every finished segment is in the archive.
pub(crate) fn archived(server: &TestPostgres) {
    let finished = server
        .psql("postgres", "select pg_walfile_name(pg_switch_wal())")
        .expect("the source server answers");
    let deadline = Instant::now() + Duration::from_secs(120);
    let done = format!("select last_archived_wal >= '{finished}' from pg_stat_archiver");
    while server.psql("postgres", &done).expect("the source server answers") != "t" {
        let log = || std::fs::read_to_string(server.log()).unwrap_or_default();
        assert!(Instant::now() < deadline, "segment {finished} is not archived: {}", log());
        std::thread::sleep(Duration::from_millis(100));
    }
}

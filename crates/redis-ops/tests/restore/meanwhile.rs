//! A server that somebody starts while its data is being restored, and what becomes of what was ready by then.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use backstay_backup_core::Class;
use backstay_backup_core::error::Classified;
use backstay_redis_ops::restore::{LiveFacts, RestoreTarget, ServerProgram, TtlPolicy};
use jiff::Timestamp;

use crate::recorder::Recorder;
use crate::world::{PROGRAM, World, ask, connect, offset, options, server};

/// Whatever works in a data directory and is called a server; ends with the test.
struct Started(PathBuf);

impl Started {
    fn stop(self) {
        drop(self);
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Ok(process) = std::fs::read_to_string(&self.0) {
            let _ = Command::new("kill").args(["-KILL", process.trim()]).status();
        }
    }
}

/// A server program that, when it is to load something, first starts another server in the data directory.
fn meddler(folder: &Path, data: &Path) -> (PathBuf, Started) {
    let (program, other, process) =
        (folder.join("meddler"), folder.join("old-server"), folder.join("process"));
    std::fs::copy("/bin/sleep", &other).unwrap();
    let script = format!(
        "#!/bin/sh\nif [ \"$1\" != --version ]; then\n\
         (cd {} && exec setsid {} 600 </dev/null >/dev/null 2>&1) &\necho $! >{}\n\
         until grep -q old-server /proc/$!/comm; do sleep 0.01; done\nfi\nexec {PROGRAM} \"$@\"\n",
        data.display(),
        other.display(),
        process.display(),
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    (program, Started(process))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_started_meanwhile_is_in_the_way_and_what_was_ready_is_not_taken_with_old_expiries()
{
    let world = World::new().await;
    let source = server(&[]).await;
    let mut connection = connect(&source).await;
    let recorder = Recorder::attach(&source);
    let _: redis::Value = ask(&mut connection, "SET session v EX 100").await;
    let end = offset(&mut connection).await;
    world.set(&recorder).await;
    world.segments(recorder.id, recorder.start, recorder.until(end), [1000]).await;
    let mut target = server(&[("appendonly", "yes")]).await;
    let mut connection = connect(&target).await;
    let _: redis::Value = ask(&mut connection, "SET mine 1").await;
    drop(connection);
    target.stop().unwrap();
    let data = target.data_directory();
    let (program, started) = meddler(world.folder.path(), &data);
    let usual = options(&target, TtlPolicy::Shift).await;
    let program = ServerProgram::find(Some(&program), None).await.unwrap();
    let meddled = usual.clone().rehearse(true).program(Some(program));
    let error = world.restore(RestoreTarget::Newest, &meddled).await.unwrap_err();
    assert_eq!(error.class(), Class::Conflict, "{error}");
    assert!(error.to_string().contains("(old-server)"), "{error}");
    started.stop();
    target.restart().unwrap();
    let mut connection = connect(&target).await;
    LiveFacts::ask(&mut connection).await.unwrap();
    assert_eq!(ask::<i64>(&mut connection, "EXISTS mine").await, 1, "the old data is in its place");
    drop(connection);
    target.stop().unwrap();
    // Everything was ready for the swap, with expiries that were right then.
    assert!(data.join(".backstay-restore/ready.json").exists());
    tokio::time::sleep(Duration::from_secs(2)).await;
    let begun = Timestamp::now();
    let receipt = world.restore(RestoreTarget::Newest, &usual).await.unwrap();
    let passed = begun.duration_since(receipt.planned_time).as_secs_f64();
    let shift = receipt.ttl_shift_seconds;
    assert!(shift >= passed, "expiries were moved by {shift} s, and {passed} s had passed");
}

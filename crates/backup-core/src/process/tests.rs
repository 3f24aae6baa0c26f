use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::*;

fn runner() -> SystemRunner {
    let path = std::env::var("PATH").unwrap();
    SystemRunner::new(&BTreeMap::from([
        ("PATH".to_owned(), path),
        ("PGPASSWORD".to_owned(), "leak".to_owned()),
    ]))
}

fn shell(script: &str) -> CommandSpec {
    CommandSpec::new("sh").args(["-c", script])
}

/// Whether any process of the group is alive; zombies do not count.
fn group_lives(group: u32) -> bool {
    std::fs::read_dir("/proc").unwrap().filter_map(Result::ok).any(|entry| {
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { return false };
        // "pid (name) state parent group …", where the name may hold anything.
        let Some((_, after)) = stat.rsplit_once(") ") else { return false };
        let mut fields = after.split(' ');
        let state = fields.next();
        state != Some("Z") && fields.nth(1) == Some(group.to_string().as_str())
    })
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "timed out: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn until_file(path: &Path) {
    until("file appears", || path.exists()).await;
}

#[tokio::test]
async fn a_failed_child_explains_itself_in_its_own_words() {
    let mut child = runner().spawn(shell("echo first >&2; echo last words >&2; exit 3")).await.unwrap();
    let error = child.wait().await.unwrap_err();
    assert_eq!(error.to_string(), "sh ended with exit code 3:\n  first\n  last words");
    let mut child = runner().spawn(shell("kill -KILL $$")).await.unwrap();
    assert_eq!(child.wait().await.unwrap_err().to_string(), "sh was killed by SIGKILL");
}

#[tokio::test]
async fn a_missing_program_is_told_from_a_failed_one() {
    let error = runner().spawn(CommandSpec::new("no-such-program")).await.unwrap_err();
    assert!(matches!(&error, ProcessError::NotFound { program } if program == "no-such-program"), "{error}");
    let nowhere = CommandSpec::new("true").directory("/no/such/directory");
    assert!(matches!(runner().spawn(nowhere).await, Err(ProcessError::Io { .. })));
    let folder = CommandSpec::new("/tmp");
    assert!(matches!(runner().spawn(folder).await, Err(ProcessError::Io { .. })));
}

#[tokio::test]
async fn the_environment_is_only_what_was_given() {
    let command = CommandSpec::new("env").env("GIVEN", "1");
    let output = capture(&runner(), command, 10_000, &CancellationToken::new()).await.unwrap();
    let text = String::from_utf8(output).unwrap();
    let mut names: Vec<_> =
        text.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    names.sort_unstable();
    assert_eq!(names, ["GIVEN", "PATH"]);
}

#[tokio::test]
async fn secrets_do_not_come_back_through_stderr() {
    let command = shell("echo \"cannot use $SECRET\" >&2; exit 1").env("SECRET", "s3cr3t");
    let mut child = runner().spawn(command.hide(Secret::new("s3cr3t".to_owned()))).await.unwrap();
    let error = child.wait().await.unwrap_err();
    assert_eq!(error.to_string(), "sh ended with exit code 1: cannot use [redacted]");
    assert!(!format!("{error:?}{child:?}").contains("s3cr3t"));
}

#[tokio::test]
async fn data_flows_through_both_pipes() {
    let mut child = runner().spawn(CommandSpec::new("cat").pipe_stdin().pipe_stdout()).await.unwrap();
    let mut stdin = child.take_stdin().unwrap();
    let mut stdout = child.take_stdout().unwrap();
    let data: Vec<u8> = (0..5_000_000_u32).map(|n| (n % 251) as u8).collect();
    let sent = data.clone();
    let writer = tokio::task::spawn_blocking(move || stdin.write_all(&sent).unwrap());
    let reader = tokio::task::spawn_blocking(move || {
        let mut got = Vec::new();
        stdout.read_to_end(&mut got).unwrap();
        got
    });
    writer.await.unwrap();
    assert!(reader.await.unwrap() == data);
    child.wait().await.unwrap();
}

#[tokio::test]
async fn a_flood_on_stderr_neither_blocks_nor_grows() {
    let mut child =
        runner().spawn(shell("yes noise | head -c 19999998 >&2; echo end >&2; exit 1")).await.unwrap();
    let error = child.wait().await.unwrap_err().to_string();
    assert!(error.ends_with("  noise\n  end") && error.len() < 5000, "{error}");
}

#[tokio::test]
async fn captured_output_has_a_limit() {
    let endless = CommandSpec::new("yes");
    let error = capture(&runner(), endless, 1000, &CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.to_string(), "yes wrote more than 1000 bytes");
}

#[tokio::test]
async fn cancelling_ends_the_whole_group_gently() {
    let folder = tempfile::tempdir().unwrap();
    let (ready, told) = (folder.path().join("ready"), folder.path().join("told"));
    let script = "trap 'echo told > told; exit 0' TERM; sleep 1000 & echo > ready; wait";
    let mut child = runner().spawn(shell(script).directory(folder.path())).await.unwrap();
    let group = child.id().unwrap();
    until_file(&ready).await;
    let cancel = CancellationToken::new();
    cancel.cancel();
    let error = child.wait_or_cancel(&cancel).await.unwrap_err();
    assert!(matches!(error, ProcessError::Cancelled { .. }), "{error}");
    assert!(told.exists(), "it had time to tidy up");
    assert!(!group_lives(group));
}

#[tokio::test]
async fn a_child_that_ignores_sigterm_is_killed_after_its_grace() {
    let folder = tempfile::tempdir().unwrap();
    let script = "trap '' TERM; sleep 1000 & echo > ready; wait; wait";
    let command = shell(script).directory(folder.path()).grace(Duration::from_millis(200));
    let mut child = runner().spawn(command).await.unwrap();
    let group = child.id().unwrap();
    until_file(&folder.path().join("ready")).await;
    let start = Instant::now();
    child.terminate().await;
    assert!(start.elapsed() >= Duration::from_millis(200));
    until("the group is gone", || !group_lives(group)).await;
}

#[tokio::test]
async fn dropping_a_child_kills_its_whole_group() {
    let folder = tempfile::tempdir().unwrap();
    let script = "trap '' TERM; sleep 1000 & sleep 1000 & echo > ready; wait";
    let child = runner().spawn(shell(script).directory(folder.path())).await.unwrap();
    let group = child.id().unwrap();
    until_file(&folder.path().join("ready")).await;
    assert!(group_lives(group));
    drop(child);
    until("the group is gone", || !group_lives(group)).await;
}

#[tokio::test]
async fn a_straggler_that_holds_stderr_does_not_hold_us() {
    let mut child = runner().spawn(shell("sleep 1000 & echo done >&2; exit 1")).await.unwrap();
    let group = child.id().unwrap();
    let error = child.wait().await.unwrap_err();
    assert_eq!(error.to_string(), "sh ended with exit code 1: done");
    until("the straggler is gone", || !group_lives(group)).await;
}

#[tokio::test]
async fn a_guard_ends_the_group_when_its_pipe_breaks() {
    // What the kernel does when we are killed, without being killed: close the pipe.
    let folder = tempfile::tempdir().unwrap();
    let mut leader = tokio::process::Command::new("sh")
        .args(["-c", "sleep 1000 & echo > ready; wait"])
        .current_dir(folder.path())
        .process_group(0)
        .spawn()
        .unwrap();
    let group = leader.id().unwrap();
    until_file(&folder.path().join("ready")).await;
    let guard = guard::Guard::over(group, Duration::from_secs(1)).unwrap();
    let shell = guard.abandon();
    leader.wait().await.unwrap();
    until("the group is gone", || !group_lives(group)).await;
    drop(shell);
}

#[tokio::test]
async fn scripts_play_in_order() {
    let runner = ScriptedRunner::new([
        Script::says("pg_dump", "16.1"),
        Script::fails("psql", 2, "no"),
        Script::missing("x"),
    ]);
    let cancel = CancellationToken::new();
    assert_eq!(capture(&runner, CommandSpec::new("pg_dump"), 100, &cancel).await.unwrap(), b"16.1");
    let error = capture(&runner, CommandSpec::new("/bin/psql").arg("-X"), 100, &cancel).await.unwrap_err();
    assert_eq!(error.to_string(), "psql ended with exit code 2: no");
    assert!(matches!(runner.spawn(CommandSpec::new("x")).await, Err(ProcessError::NotFound { .. })));
    assert!(matches!(runner.spawn(CommandSpec::new("more")).await, Err(ProcessError::Io { .. })));
    assert_eq!(runner.started()[1].command.args, ["-X"]);
}

//! `restore-wal`: the exit codes, which decide whether a server stops or promotes with data missing.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use backstay_testkit::s3::{Effect, FaultRule, Faults};
use support::bucket::Bucket;
use support::{Stage, ended, eventually, segment, segment_name, sized};

/// For what is repeated until the deadline.
const SHORT: &[&str] = &["--no-prefetch", "--deadline", "3s"];
/// For what is answered at once, however slow the machine is.
const PATIENT: &[&str] = &["--no-prefetch", "--deadline", "2m"];

/// A stage with segments 3 to 5 archived.
fn archived() -> Stage {
    let stage = Stage::new();
    push_some(&stage);
    stage
}

fn push_some(stage: &Stage) {
    for number in 3..6 {
        stage.put(number, 7);
        let ended = stage.archive(&[&format!("pg_wal/{}", segment_name(number)), "--no-look-ahead"]);
        assert_eq!(ended.code, 0, "{ended:?}");
        stage.note_done(number);
    }
}

fn object(stage: &Stage, number: u64) -> PathBuf {
    let name = segment_name(number);
    stage.path(&format!("repository/main/wal/{}/00000001/00000000/{name}", support::SYSTEM))
}

/// The code of a request, after which the target must not exist.
fn refused(stage: &Stage, number: u64, args: &[&str]) -> i32 {
    let target = stage.data().join("pg_wal/RECOVERYXLOG");
    let _ = fs::remove_file(&target);
    let ended = stage.restore(&segment_name(number), args);
    assert!(!target.exists(), "{ended:?}");
    assert!(ended.code == 1 || ended.code > 125, "{ended:?}");
    assert!(ended.code == 1 || !ended.stderr.is_empty(), "{ended:?}");
    ended.code
}

/// Makes the data directory that of a server which follows another one.
fn become_standby(stage: &Stage) {
    fs::write(stage.data().join("standby.signal"), "").unwrap();
}

#[test]
fn the_end_of_the_log_is_absent_and_a_hole_is_not() {
    let stage = archived();
    assert_eq!(stage.restore(&segment_name(4), PATIENT).code, 0);
    assert_eq!(fs::read(stage.data().join("pg_wal/RECOVERYXLOG")).unwrap(), segment(1, 4, 7));
    assert_eq!(refused(&stage, 6, PATIENT), 1);
    assert_eq!(stage.restore("00000002.history", PATIENT).code, 1);
    fs::remove_file(object(&stage, 4)).unwrap();
    assert_eq!(refused(&stage, 4, SHORT), 203);
    let standby = ["--no-prefetch", "--standby", "--deadline", "3s"];
    assert_eq!(refused(&stage, 4, &standby), 203, "there is no standby.signal: this recovery ends some time");
    become_standby(&stage);
    assert_eq!(refused(&stage, 4, &standby), 1, "it may be on its way");
}

#[test]
fn damage_is_never_absence() {
    let stage = archived();
    let path = object(&stage, 4);
    let good = fs::read(&path).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    // Sealed whole, and not what its name says.
    let sealed = |content: &[u8]| {
        let none = backstay_backup_core::encryption::Recipients::none();
        backstay_backup_core::sealed::seal(content, 3, &none).unwrap().1.to_vec()
    };
    let mut other_system = segment(1, 4, 7);
    other_system[24..32].copy_from_slice(&9u64.to_le_bytes());
    become_standby(&stage);
    for (what, bytes, code) in [
        ("flipped", flipped, 203),
        ("truncated", good[..good.len() / 2].to_vec(), 203),
        ("empty", Vec::new(), 203),
        ("garbage of the right size", vec![7; good.len()], 203),
        ("sealed garbage of the right size", sealed(&vec![7; support::MIB]), 203),
        ("another segment", sealed(&segment(1, 5, 7)), 203),
        ("another cluster", sealed(&other_system), 204),
        ("a later timeline", sealed(&segment(2, 4, 7)), 203),
        ("another size", sealed(&sized(1, 2, 7, 2 * support::MIB)), 203),
    ] {
        fs::write(&path, bytes).unwrap();
        assert_eq!(refused(&stage, 4, SHORT), code, "{what}");
        assert_eq!(refused(&stage, 4, &["--no-prefetch", "--standby"]), code, "{what}, for a standby");
    }
}

#[test]
fn a_wrong_place_proves_nothing() {
    let mut stage = archived();
    assert_eq!(refused(&stage, 6, &["--no-prefetch", "--stanza", "other", "--deadline", "3s"]), 202);
    assert_eq!(refused(&stage, 6, &["--no-prefetch", "--system-identifier", "9", "--deadline", "3s"]), 202);
    stage.flags[1] = stage.path("nowhere").display().to_string();
    assert_eq!(refused(&stage, 6, SHORT), 202);
    fs::create_dir(stage.path("nowhere")).unwrap();
    assert_eq!(refused(&stage, 6, SHORT), 202);
    stage.flags[1] = "s3://backups/x?endpoint=http://no-such-host.invalid:9&region=x".to_owned();
    assert_eq!(refused(&stage, 6, SHORT), 205, "a name that does not resolve");
}

#[test]
fn bad_arguments_and_configurations_end_above_125() {
    let mut stage = archived();
    let name = segment_name(4);
    for args in [
        vec![],
        vec![&*name],
        vec![&*name, "pg_wal/x", "more"],
        vec![&*name, "pg_wal/x", "--no-such-flag"],
        vec!["nonsense", "pg_wal/x"],
        vec![&*name, "pg_wal/x", "--deadline", "soon"],
        vec![&*name, "pg_wal/x", "--stanza", "a/b"],
        vec![&*name, "pg_wal/x", "--help"],
        vec![&*name, "pg_wal/x", "--version"],
        vec![&*name, "pg_wal/x", "--system-identifier", "x"],
        vec![&*name, "pg_wal/x", "--option", "quorum=7"],
        vec![&*name, "pg_wal/x", "--log-level", "loud", "--no-prefetch"],
    ] {
        let ended = ended(stage.command("restore-wal", &args));
        assert_eq!(ended.code, 202, "{args:?}: {ended:?}");
    }
    for broken in ["stanza = ", "[wal]\nspol = 'x'", "\u{0}"] {
        stage.configure(broken);
        assert_eq!(refused(&stage, 4, &[]), 202, "{broken:?}");
    }
    stage.environment[0].1 = "/nonexistent/backstay.toml".to_owned();
    assert!(refused(&stage, 4, &[]) > 125);
    stage.flags.clear();
    stage.environment.clear();
    assert_eq!(ended(stage.command("restore-wal", &["--version"])).code, 0, "asked by a person");
}

#[test]
fn a_target_that_cannot_be_written_is_no_end_of_the_log() {
    let stage = archived();
    let name = segment_name(4);
    for target in ["nowhere/RECOVERYXLOG", "pg_wal"] {
        let ended = ended(stage.command("restore-wal", &[&[&*name, target], SHORT].concat()));
        assert!(ended.code > 125, "{target}: {ended:?}");
    }
    let control = stage.data().join("global/pg_control");
    fs::remove_file(control).unwrap();
    assert_eq!(refused(&stage, 4, SHORT), 202);
}

#[test]
fn a_folder_without_permission_and_a_full_disk_are_no_end_of_the_log() {
    let stage = archived();
    let name = segment_name(4);
    let target = stage.path("locked");
    fs::create_dir(&target).unwrap();
    fs::set_permissions(&target, fs::Permissions::from_mode(0o555)).unwrap();
    let path = target.join("RECOVERYXLOG");
    let inner = stage.command("restore-wal", &[&[&*name, path.to_str().unwrap()], SHORT].concat());
    // Root without its right to overrule permissions; a limit on file sizes stands for a full disk.
    let wrap = |wrapper: &[&str], inner: &std::process::Command| {
        let mut command = std::process::Command::new(wrapper[0]);
        command.args(&wrapper[1..]).arg(inner.get_program()).args(inner.get_args());
        command.current_dir(stage.data());
        command.envs(stage.environment.iter().map(|(name, value)| (name, value)));
        ended(command)
    };
    if rustix::process::geteuid().is_root() {
        let denied = wrap(&["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--"], &inner);
        assert_eq!(denied.code, 202, "{denied:?}");
    } else {
        assert_eq!(ended(inner).code, 202);
    }
    let inner = stage.command("restore-wal", &[&[&*name, "pg_wal/RECOVERYXLOG"], SHORT].concat());
    let full = wrap(&["prlimit", "--fsize=500000", "--", "env", "--ignore-signal=XFSZ"], &inner);
    assert_eq!(full.code, 205, "{full:?}");
    assert_eq!(
        fs::read_dir(stage.data().join("pg_wal")).unwrap().count(),
        4,
        "the segments, and nothing half"
    );
}

#[test]
fn what_a_bucket_answers_is_never_taken_for_absence() {
    let bucket = Bucket::start();
    let mut stage = bucket.stage();
    push_some(&stage);
    assert_eq!(refused(&stage, 6, PATIENT), 1);
    let faults = bucket.server.faults();
    for (effect, expected) in [
        (Effect::AccessDenied, 202),
        (Effect::InternalError, 205),
        (Effect::ServiceUnavailable, 205),
        (Effect::SlowDown, 205),
        (Effect::DropRequest, 205),
        (Effect::Delay(Duration::from_secs(20)), 205),
    ] {
        for operation in ["GetObject", "ListObjectsV2"] {
            faults.set(Faults::default().rule(FaultRule::on(operation, effect.clone())));
            let code = refused(&stage, 6, SHORT);
            // The deadline may end a repetition in the middle.
            assert!(code == expected || code == 205, "{effect:?} of {operation}: {code}");
        }
        faults.clear();
    }
    faults.set(Faults::default().rule(FaultRule::on("GetObject", Effect::InternalError)));
    let standby = ["--no-prefetch", "--standby", "--deadline", "3s"];
    assert_eq!(refused(&stage, 4, &standby), 205, "no standby: what it takes for the end it takes for good");
    become_standby(&stage);
    assert_eq!(refused(&stage, 4, &standby), 1, "a standby asks again");
    faults.clear();
    let place = stage.flags[1].clone();
    stage.flags[1] = bucket.place("elsewhere");
    assert_eq!(refused(&stage, 6, SHORT), 202, "404 in a wrong folder");
    stage.flags[1] = place.replace("backups", "no-such-bucket");
    assert_eq!(refused(&stage, 6, SHORT), 202, "404 of the bucket");
    stage.flags[1] = place;
    stage.environment.iter_mut().find(|(name, _)| name == "AWS_SECRET_ACCESS_KEY").unwrap().1 =
        "wrong".to_owned();
    assert_eq!(refused(&stage, 6, SHORT), 202, "a wrong key");
}

#[test]
fn without_the_key_of_an_encrypted_segment_nothing_is_absent() {
    use age::secrecy::ExposeSecret;
    let stage = Stage::new();
    let identity = age::x25519::Identity::generate();
    let recipient = identity.to_public();
    let encrypt = format!("[encryption]\nrecipients = [\"{recipient}\"]\nallow-single-recipient = true\n");
    stage.configure(&encrypt);
    push_some(&stage);
    assert_eq!(refused(&stage, 4, SHORT), 202);
    let key = stage.path("key");
    fs::write(&key, identity.to_string().expose_secret()).unwrap();
    let own = ["--identity-file", key.to_str().unwrap()];
    assert_eq!(stage.restore(&segment_name(4), &[PATIENT, &own].concat()).code, 0);
    fs::write(&key, age::x25519::Identity::generate().to_string().expose_secret()).unwrap();
    assert_eq!(refused(&stage, 4, &[SHORT, &own].concat()), 202);
}

#[test]
fn a_repository_that_does_not_answer_leaves_absence_unproven() {
    let mut stage = archived();
    let away = stage.path("away").display().to_string();
    stage.flags.extend(["--repository".to_owned(), away]);
    assert_eq!(stage.restore(&segment_name(4), PATIENT).code, 0, "one whole copy is enough");
    assert_eq!(refused(&stage, 6, SHORT), 202);
}

/// Whether a process has a handler for SIGTERM.
fn catches_termination(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    caught.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).unwrap() & (1 << 14) != 0)
}

#[test]
fn a_request_that_is_told_to_stop_ends_as_a_server_expects() {
    let stage = archived();
    fs::write(object(&stage, 4), "damaged").unwrap();
    let args = [&segment_name(4), "pg_wal/RECOVERYXLOG", "--no-prefetch"];
    let mut call = stage.spawn("restore-wal", &args);
    eventually("it listens to SIGTERM", || catches_termination(call.id()));
    let pid = rustix::process::Pid::from_child(&call);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(call.wait().unwrap().code(), Some(143));
}
